"""The text encoder, in both layouts."""
import math

import torch
import transformers

from store import randomize, relative, renamed, save, save_io, save_json

UMT5_CONFIG = dict(
    architectures=["UMT5EncoderModel"], classifier_dropout=0.0, d_ff=128, d_kv=64, d_model=64, decoder_start_token_id=0,
    dense_act_fn="gelu_new", dropout_rate=0.1, eos_token_id=1, feed_forward_proj="gated-gelu", initializer_factor=1.0,
    is_encoder_decoder=True, is_gated_act=True, layer_norm_epsilon=1e-6, model_type="umt5", num_decoder_layers=3,
    num_heads=2, num_layers=3, output_past=True, pad_token_id=0, relative_attention_max_distance=128,
    relative_attention_num_buckets=32, scalable_attention=True, tie_word_embeddings=False,
    tokenizer_class="T5Tokenizer", use_cache=True, vocab_size=576,
)
UMT5_TO_ORIGINAL = [
    (r"^shared\.", "token_embedding."),
    (r"^encoder\.final_layer_norm\.", "norm."),
    (r"^encoder\.block\.", "blocks."),
    (r"layer\.0\.SelfAttention\.relative_attention_bias\.", "pos_embedding.embedding."),
    (r"layer\.0\.SelfAttention\.", "attn."),
    (r"layer\.0\.layer_norm\.", "norm1."),
    (r"layer\.1\.DenseReluDense\.wi_0\.", "ffn.gate.0."),
    (r"layer\.1\.DenseReluDense\.wi_1\.", "ffn.fc1."),
    (r"layer\.1\.DenseReluDense\.wo\.", "ffn.fc2."),
    (r"layer\.1\.layer_norm\.", "norm2."),
]


@torch.no_grad()
def make_umt5(out):
    config = transformers.UMT5Config(**UMT5_CONFIG)
    model = transformers.UMT5EncoderModel(config)
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")

    def scale(name, p):
        if "shared" in name or "embed_tokens" in name or "relative_attention_bias" in name:
            return 1.0
        return 0.25 / math.sqrt(p.shape[1]) if name.endswith(("SelfAttention.q.weight",)) else None

    randomize(model, 2, scale)
    weights = {n: t for n, t in model.state_dict().items() if n != "encoder.embed_tokens.weight"}
    weights.setdefault("shared.weight", model.get_input_embeddings().weight)
    save_json(out / "umt5" / "config.json", UMT5_CONFIG | {"torch_dtype": "bfloat16"})
    save(out / "umt5" / "model.safetensors", {n: t.bfloat16() for n, t in weights.items()})
    original = renamed(weights, UMT5_TO_ORIGINAL)
    save(out / "umt5_original" / "models_t5_umt5-xxl-enc-bf16.safetensors",
         {n: t.bfloat16() if t.ndim == 2 else t for n, t in original.items()})

    tensors, worst = {}, 0.0
    exact = transformers.UMT5EncoderModel(config).eval()
    exact.load_state_dict(model.state_dict())
    exact.double()
    generator = torch.Generator().manual_seed(20)
    for case, length in (("a", 21), ("b", 150), ("c", 1)):
        ids = torch.zeros(1, 512, dtype=torch.int64)
        ids[0, :length] = torch.cat([torch.randint(4, 576, (length - 1,), generator=generator), torch.tensor([1])])
        mask = (torch.arange(512) < length).long()[None]
        hidden = model(ids, mask).last_hidden_state[0, :length]
        worst = max(worst, relative(hidden, exact(ids, mask).last_hidden_state[0, :length]))
        tensors |= {f"{case}.ids": ids[0, :length], f"{case}.hidden": hidden}
    save_io(out / "umt5_io.safetensors", tensors)
    print(f"umt5: fp32 against a float64 run: {worst:.2e}")
