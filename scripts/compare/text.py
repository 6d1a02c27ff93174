"""The text encoder at umT5-xxl's size: time of 512 tokens, and the error of two layers."""
from functools import partial

import torch
from transformers import UMT5Config, UMT5EncoderModel

from compare import files
from compare.context import Case, relative
from compare.engine import MODELS
from compare.results import Result
from compare.wan import randomize, round_weights

XXL = dict(d_model=4096, d_kv=64, d_ff=10240, num_heads=64, num_layers=24, vocab_size=256384, feed_forward_proj="gated-gelu")
TOY = dict(d_model=64, d_kv=64, d_ff=128, num_heads=2, num_layers=2, vocab_size=300, feed_forward_proj="gated-gelu")
OURS = ("d_model", "d_kv", "d_ff", "num_heads", "num_layers", "vocab_size")


def cases(ctx):
    return [Case("text encoder's error", 6, partial(measure_error, ctx)), Case("text encoder", 18, partial(measure_speed, ctx))]


def make_encoder(ctx, sizes, dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(ctx.device):
            model = randomize(UMT5EncoderModel(UMT5Config(**sizes)))
    finally:
        torch.set_default_dtype(before)
    for block in model.encoder.block:  # trained queries make up for the scale that this model's attention lacks
        block.layer[0].SelfAttention.q.weight.mul_(sizes["d_kv"] ** -0.5)
    return model


def make_inputs(ctx, sizes, tokens, length):
    """For transformers, and the same for moonkiln."""
    ids = torch.randint(2, sizes["vocab_size"], (tokens,), generator=torch.Generator().manual_seed(7))
    mask = (torch.arange(tokens) < length)
    ours = {"ids": ids.int(), "length": torch.tensor([length], dtype=torch.int32), "mask": mask.float()[:, None]}
    return (ids[None].to(ctx.device), mask[None].long().to(ctx.device)), ours


def our_sets(sizes, tokens):
    return dict(config={key: sizes[key] for key in OURS}, tokens=tokens)


def measure_speed(ctx):
    sizes, tokens = (TOY, 32) if ctx.smoke else (XXL, 512)
    model = make_encoder(ctx, sizes, torch.bfloat16)
    given, ours_given = make_inputs(ctx, sizes, tokens, tokens)

    def theirs():
        with torch.inference_mode():
            return model(*given).last_hidden_state

    result = Result(row="text", what=f"umT5-xxl, {tokens} tokens", kind="time", unit="ms", bar=1.0, aim=0.8,
                    against="transformers bf16, eager")
    with ctx.folder() as folder:
        files.write(folder / "x.safetensors", ours_given)
        # All of it depends on the prompt alone, and so is in the program that runs once per prompt.
        ctx.in_turn(result, theirs, lambda seconds: ctx.engine.bench(
            MODELS / "umt5.lua", our_sets(sizes, tokens), "--entry", "prompt", "--inputs", folder / "x.safetensors",
            iterations=ctx.runs_for(seconds))["graph_ms"] / 1000, scale=1000)
    return [result]


def measure_error(ctx):
    sizes, tokens = (TOY, 32) if ctx.smoke else ({**XXL, "num_layers": 2, "vocab_size": 1000}, 512)
    length = tokens * 5 // 8
    model = round_weights(make_encoder(ctx, sizes, torch.float32))
    given, ours_given = make_inputs(ctx, sizes, tokens, length)
    result = Result(row="text", what="umT5-xxl, two layers", kind="error", unit="error", bar=1.5, against="transformers bf16")
    with torch.inference_mode(), ctx.folder(need=2 << 30) as folder:
        weights = {name: t for name, t in model.state_dict().items() if name != "encoder.embed_tokens.weight"}
        files.write(folder / "w.safetensors", {name: t.bfloat16() for name, t in weights.items()})
        files.write(folder / "x.safetensors", ours_given)
        want = model(*given).last_hidden_state[0, :length]
        result.theirs = relative(model.bfloat16()(*given).last_hidden_state[0, :length], want)
        ctx.release()
        _, result.problem, result.note = ctx.ask(lambda: ctx.engine.run(
            MODELS / "umt5.lua", our_sets(sizes, tokens), "--weights", folder / "w.safetensors", "--inputs", folder / "x.safetensors",
            "--outputs", folder / "y.safetensors"))
        if (folder / "y.safetensors").exists():
            result.ours = relative(files.read(folder / "y.safetensors")["hidden"][:length].to(ctx.device), want)
    return [result]
