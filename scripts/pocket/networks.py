"""The pocket model's networks: the classes of Diffusers and Transformers at pocket sizes, and faster ways to run the same weights
on many whole clips: `encode`, `decode` and `velocity` give what the classes give (check.py holds them together)."""
import functools
import math

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

TEXT_ROWS = 512  # what the pipeline pads a prompt to
CHANNELS = 16
VAE = dict(base_dim=16, dim_mult=[1, 1, 2, 3], z_dim=CHANNELS, num_res_blocks=2, temperal_downsample=[False, True, True])
TEXT = dict(d_model=128, d_kv=64, num_heads=2, d_ff=256, num_layers=2, num_decoder_layers=2, feed_forward_proj="gated-gelu",
            dropout_rate=0.0, relative_attention_num_buckets=32, relative_attention_max_distance=128, layer_norm_epsilon=1e-6,
            pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, is_encoder_decoder=True, tie_word_embeddings=False,
            tokenizer_class="T5Tokenizer")
DIT = dict(patch_size=(1, 2, 2), num_attention_heads=3, attention_head_dim=64, in_channels=CHANNELS, out_channels=CHANNELS,
           text_dim=TEXT["d_model"], freq_dim=256, ffn_dim=512, num_layers=5, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
           eps=1e-6, rope_max_seq_len=1024)
SCHEDULER = dict(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000, solver_order=2,
                 final_sigmas_type="zero")
BOUNDARY = 0.875


def make_vae():
    return AutoencoderKLWan(**VAE)


def make_text(vocabulary):
    """A text encoder that begins by reading in order: one head looks at the words before, the other at those after, in the first
    layer at the nearest alone. With the usual beginning, where all places look alike, it does not learn which of two colours comes
    first."""
    text = UMT5EncoderModel(UMT5Config(vocab_size=vocabulary, **TEXT))
    # Buckets of distance: the words before, then those after; the first of each half is the word itself.
    after = TEXT["relative_attention_num_buckets"] // 2
    with torch.no_grad():
        for layer, block in enumerate(text.encoder.block):
            reach = 2 if layer == 0 else after
            bias = block.layer[0].SelfAttention.relative_attention_bias.weight.zero_()
            bias[1:reach, 0] = 5
            bias[after + 1:after + reach, 1] = 5
    return text


def make_transformer():
    """A transformer that begins by looking at the prompt: without this, the 500 rows of padding hide the prompt's few."""
    dit = WanTransformer3DModel(**DIT)
    text = dit.condition_embedder.text_embedder
    with torch.no_grad():
        for bias in (text.linear_1.bias, text.linear_2.bias):
            bias.zero_()
        for block in dit.blocks:
            # Keys of padding are normalized biases; queries begin in the opposite direction.
            direction = torch.randn_like(block.attn2.to_k.bias)
            block.attn2.to_k.bias.copy_(0.02 * direction)
            block.attn2.to_q.bias.copy_(-0.7 * direction)
            block.scale_shift_table[:, (2, 5)] += 0.3  # gates: every layer takes part from the start
        dit.proj_out.weight.zero_()
        dit.proj_out.bias.zero_()
    return dit


def make_scheduler(shift=SCHEDULER["flow_shift"]):
    return UniPCMultistepScheduler(**{**SCHEDULER, "flow_shift": shift})


# ---- VAE, a whole clip at a time --------------------------------------------------------------------------------------


def planes(x):
    """[n, h, w, c] -> the same memory as [n, c, h, w]."""
    return x.permute(0, 3, 1, 2)


def norm_silu(x, gain):
    """x [rows, channels]."""
    y = x.float()
    inverse = torch.rsqrt(y.square().sum(1, keepdim=True).clamp_min(1e-24))
    return F.silu(y * inverse * gain).to(x.dtype)


@functools.cache
def compiled_norm_silu():
    return torch.compile(norm_silu)


class WholeClips:
    """Runs an AutoencoderKLWan's weights over all frames at once. Activations lie in memory as [clips * frames, height, width,
    channels] and are handled as [clips * frames, channels, height, width]. A convolution over time runs in 3D, or (`stacked`) in
    2D with the frames it reads side by side as channels. `compiled`: norms in one kernel each, through torch.compile."""

    def __init__(self, vae, dtype=torch.float32, stacked=True, compiled=False):
        self.vae, self.dtype, self.stacked, self.compiled = vae, dtype, stacked, compiled

    def conv2d(self, x, conv, **options):
        return F.conv2d(x, conv.weight.to(self.dtype), conv.bias.to(self.dtype), **options)

    def norm_silu(self, x, norm):
        pixels, gain = x.permute(0, 2, 3, 1), (norm.gamma * norm.scale).flatten()
        rows = pixels.reshape(-1, x.shape[1])
        if self.compiled:
            torch._dynamo.mark_dynamic(rows, 0)
            rows = compiled_norm_silu()(rows, gain)
        else:
            rows = norm_silu(rows, gain)
        return planes(rows.view(pixels.shape))

    def over_time(self, frames, conv, stride=1):
        """frames [n, t, h, w, c] -> [n * (t - 2) / stride, out, h, w]: each result reads three frames."""
        padding = conv.weight.shape[3] // 2, conv.weight.shape[4] // 2
        weight, bias = conv.weight.to(self.dtype), conv.bias.to(self.dtype)
        if not self.stacked:
            y = F.conv3d(frames.permute(0, 4, 1, 2, 3), weight, bias, stride=(stride, 1, 1), padding=(0, *padding))
            return planes(y.permute(0, 2, 3, 4, 1).flatten(0, 1))
        count = (frames.shape[1] - 3) // stride + 1
        side_by_side = torch.cat([frames[:, i:i + stride * count:stride] for i in range(3)], -1)
        return F.conv2d(planes(side_by_side.flatten(0, 1)), weight.transpose(1, 2).flatten(1, 2), bias, padding=padding)

    def causal(self, x, conv, clips):
        """Each frame with the two before it, zeros before the first."""
        if conv.weight.shape[2] == 1:
            return F.conv2d(x, conv.weight[:, :, 0].to(self.dtype), conv.bias.to(self.dtype))
        return self.over_time(F.pad(self.frames(x, clips), (0, 0, 0, 0, 0, 0, 2, 0)), conv)

    def frames(self, x, clips):
        return x.permute(0, 2, 3, 1).unflatten(0, (clips, -1))

    def residual(self, x, block, clips):
        shortcut = x if isinstance(block.conv_shortcut, torch.nn.Identity) else self.causal(x, block.conv_shortcut, clips)
        h = self.causal(self.norm_silu(x, block.norm1), block.conv1, clips)
        return shortcut + self.causal(self.norm_silu(h, block.norm2), block.conv2, clips)

    def middle(self, x, block, clips):
        x = self.residual(x, block.resnets[0], clips)
        attention = block.attentions[0]
        h = F.normalize(x.float(), dim=1) * attention.norm.scale * attention.norm.gamma
        qkv = self.conv2d(h.to(self.dtype), attention.to_qkv).flatten(2).transpose(1, 2)[:, None]
        q, k, v = (t.contiguous() for t in qkv.chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])
        return self.residual(x + self.conv2d(y, attention.proj), block.resnets[1], clips)

    def down(self, x, block, clips):
        x = self.conv2d(F.pad(x, (0, 1, 0, 1)), block.resample[1], stride=2)
        if block.mode == "downsample3d":  # the first frame stays; later pairs are joined with the frame before them
            frames = self.frames(x, clips)
            joined = self.frames(self.over_time(frames, block.time_conv, 2), clips)
            x = planes(torch.cat([frames[:, :1], joined], 1).flatten(0, 1))
        return x

    def up(self, x, block, clips):
        if block.mode == "upsample3d":  # the first frame stays and is no past of the others, which double
            frames = self.frames(x, clips)
            first, later = frames[:, :1], frames[:, 1:]
            both = self.frames(self.causal(planes(later.flatten(0, 1)), block.time_conv, clips), clips)
            both = both.unflatten(4, (2, -1)).permute(0, 1, 4, 2, 3, 5).flatten(1, 2)
            x = planes(torch.cat([first, both], 1).flatten(0, 1))
        return self.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), block.resample[1], padding=1)

    def head(self, x, module, clips):
        return self.causal(self.norm_silu(x, module.norm_out), module.conv_out, clips)

    def first(self, x):
        return planes(x.to(self.dtype).permute(0, 2, 3, 4, 1).flatten(0, 1).contiguous())

    def last(self, x, clips):
        return self.frames(x.float(), clips).permute(0, 4, 1, 2, 3)

    def encode(self, clips):
        """clips [n, 3, frames, height, width], at least 5 frames -> mean and log variance, f32 [n, 16, latent frames, height / 8,
        width / 8]."""
        n, encoder = clips.shape[0], self.vae.encoder
        x = self.causal(self.first(clips), encoder.conv_in, n)
        for block in encoder.down_blocks:
            x = self.down(x, block, n) if hasattr(block, "resample") else self.residual(x, block, n)
        x = self.head(self.middle(x, encoder.mid_block, n), encoder, n)
        mean, log_variance = self.last(self.causal(x, self.vae.quant_conv, n), n).chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, latents):
        """latents [n, 16, latent frames, h, w], at least 2 frames, not normalized -> f32 [n, 3, frames, 8 h, 8 w], not clamped."""
        n, decoder = latents.shape[0], self.vae.decoder
        x = self.causal(self.first(latents), self.vae.post_quant_conv, n)
        x = self.middle(self.causal(x, decoder.conv_in, n), decoder.mid_block, n)
        for block in decoder.up_blocks:
            for resnet in block.resnets:
                x = self.residual(x, resnet, n)
            if block.upsamplers is not None:
                x = self.up(x, block.upsamplers[0], n)
        return self.last(self.head(x, decoder, n), n)


def latent_statistics(vae, device):
    """Mean and deviation that the config gives, shaped for [n, 16, f, h, w]."""
    shape = (1, -1, 1, 1, 1)
    mean, std = (torch.tensor(v, device=device).view(shape) for v in (vae.config.latents_mean, vae.config.latents_std))
    return mean, std


# ---- text --------------------------------------------------------------------------------------------------------------


def t5_norm(x, layer, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * layer.weight


def encode_text(encoder, ids):
    """ids [n, k], 0 beyond the end -> hidden states [n, k, d], rows beyond the end zero, and how many rows are real [n]: what the
    UMT5EncoderModel gives, without questions to the device that a CUDA graph cannot hold."""
    mask = (ids != 0)
    eps = encoder.config.layer_norm_epsilon
    x = F.embedding(ids, encoder.shared.weight)
    place = torch.arange(ids.shape[1], device=ids.device)
    for block in encoder.encoder.block:
        attention, norm = block.layer[0].SelfAttention, block.layer[0].layer_norm
        heads, width = attention.n_heads, attention.key_value_proj_dim
        bucket = attention._relative_position_bucket(place[None, :] - place[:, None])
        bias = attention.relative_attention_bias(bucket).permute(2, 0, 1) + torch.where(mask, 0.0, -1e30)[:, None, None, :]
        h = t5_norm(x, norm, eps)
        q, k, v = (F.linear(h, p.weight).unflatten(2, (heads, width)).transpose(1, 2) for p in (attention.q, attention.k, attention.v))
        y = torch.softmax(q @ k.transpose(2, 3) + bias, -1) @ v
        x = x + F.linear(y.transpose(1, 2).flatten(2), attention.o.weight)
        dense, norm = block.layer[1].DenseReluDense, block.layer[1].layer_norm
        h = t5_norm(x, norm, eps)
        x = x + F.linear(F.gelu(F.linear(h, dense.wi_0.weight), approximate="tanh") * F.linear(h, dense.wi_1.weight), dense.wo.weight)
    hidden = t5_norm(x, encoder.encoder.final_layer_norm, eps)
    return hidden * mask[:, :, None], mask.sum(1)


def padding_bias(lengths, rows):
    """What to add to the cross-attention's logits of `rows` rows so that they stand for TEXT_ROWS: the rows beyond a prompt's end
    are all alike, so a few of them, weighed more, do the work of all. f32 [n, 1, 1, rows]."""
    weight = torch.log((TEXT_ROWS - lengths) / (rows - lengths)).float()
    beyond = torch.arange(rows, device=lengths.device) >= lengths[:, None]
    return (beyond * weight[:, None])[:, None, None, :]


# ---- transformer -------------------------------------------------------------------------------------------------------


def rotate(x, cos, sin):
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


def layer_norm(x, eps):
    return F.layer_norm(x.float(), x.shape[-1:], eps=eps)


def linear(x, weight, bias):
    return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))


def apply(x, layer):
    return linear(x, layer.weight, layer.bias)


def rms(x, gain, eps):
    y = x.float()
    return y * torch.rsqrt((y * y).mean(-1, keepdim=True) + eps) * gain


def block_weights(block):
    """A WanTransformerBlock's parameters, in the order in which block_forward takes them."""
    layers = [block.attn1.to_q, block.attn1.to_k, block.attn1.to_v, block.attn1.to_out[0], block.attn2.to_q, block.attn2.to_k,
              block.attn2.to_v, block.attn2.to_out[0], block.ffn.net[0].proj, block.ffn.net[2]]
    gains = [block.attn1.norm_q.weight, block.attn1.norm_k.weight, block.attn2.norm_q.weight, block.attn2.norm_k.weight]
    return [block.scale_shift_table, block.norm2.weight, block.norm2.bias, *gains, *(p for m in layers for p in (m.weight, m.bias))]


def block_forward(heads, eps, x, text, bias, modulation, cos, sin, table, gain, offset, *weights):
    """One WanTransformerBlock; x f32 [n, tokens, dim], text [n, rows, dim], matmuls in text's dtype. A function of tensors alone,
    so that compiling it once serves every block."""
    dtype = text.dtype
    self_q_gain, self_k_gain, cross_q_gain, cross_k_gain = weights[:4]
    (self_q, self_k, self_v, self_o, cross_q, cross_k, cross_v, cross_o, widen, narrow) = zip(weights[4::2], weights[5::2])
    shift1, scale1, gate1, shift2, scale2, gate2 = (table + modulation).chunk(6, 1)

    def split(t):
        return t.unflatten(2, (heads, -1)).transpose(1, 2)

    h = (layer_norm(x, eps) * (1 + scale1) + shift1).to(dtype)
    q = rotate(split(rms(linear(h, *self_q), self_q_gain, eps)), cos, sin).to(dtype)
    k = rotate(split(rms(linear(h, *self_k), self_k_gain, eps)), cos, sin).to(dtype)
    y = F.scaled_dot_product_attention(q, k, split(linear(h, *self_v))).transpose(1, 2).flatten(2)
    x = x + linear(y, *self_o) * gate1

    h = (layer_norm(x, eps) * gain + offset).to(dtype)
    q = split(rms(linear(h, *cross_q), cross_q_gain, eps).to(dtype))
    k = split(rms(linear(text, *cross_k), cross_k_gain, eps).to(dtype))
    shares = torch.softmax((q @ k.transpose(2, 3)).float() / math.sqrt(q.shape[-1]) + bias, -1).to(dtype)
    x = x + linear((shares @ split(linear(text, *cross_v))).transpose(1, 2).flatten(2), *cross_o)

    h = (layer_norm(x, eps) * (1 + scale2) + shift2).to(dtype)
    return x + linear(F.gelu(linear(h, *widen), approximate="tanh"), *narrow) * gate2


def velocity(dit, latents, timesteps, hidden, bias, dtype=torch.float32, run_block=block_forward):
    """What dit(latents, timesteps, hidden padded to TEXT_ROWS) gives, from fewer rows: bias is padding_bias's."""
    n, _, frames, height, width = latents.shape
    embed, eps = dit.condition_embedder, dit.config.eps
    freqs_cos, freqs_sin = dit.rope(latents)
    cos, sin = (f.float().transpose(1, 2)[..., 0::2] for f in (freqs_cos, freqs_sin))
    e = embed.time_embedder(embed.timesteps_proj(timesteps).float())
    modulation = embed.time_proj(F.silu(e)).unflatten(1, (6, -1))
    text = hidden.to(dtype)
    text = apply(F.gelu(apply(text, embed.text_embedder.linear_1), approximate="tanh"), embed.text_embedder.linear_2)
    patches = latents.unflatten(3, (-1, 2)).unflatten(5, (-1, 2)).permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)
    weight = dit.patch_embedding.weight.flatten(1)
    x = F.linear(patches.to(dtype), weight.to(dtype), dit.patch_embedding.bias.to(dtype)).float()
    for block in dit.blocks:
        x = run_block(block.attn1.heads, eps, x, text, bias, modulation, cos, sin, *block_weights(block))
    shift, scale = (dit.scale_shift_table + e[:, None]).chunk(2, 1)
    y = apply((layer_norm(x, eps) * (1 + scale) + shift).to(dtype), dit.proj_out).float()
    y = y.unflatten(2, (2, 2, -1)).unflatten(1, (frames, height // 2, width // 2))
    return y.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
