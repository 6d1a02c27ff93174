"""The whole pipeline on a tiny checkpoint."""
import subprocess
import tempfile
from pathlib import Path

import diffusers
import torch
from diffusers import UniPCMultistepScheduler

from prompts import prompt_clean
from store import save_io

PIPELINE_CALL = dict(
    prompt="a cat and a dog bake a cake in the kitchen,  slow camera move, 白色的猫", negative_prompt="static, blurry, 低质量",
    height=32, width=48, num_frames=5, num_inference_steps=4, guidance_scale=4.0, guidance_scale_2=3.0)


def make_pipeline(out):
    """WanPipeline on the folder that scripts/tiny_checkpoint.lua writes: prompt in, frames out, with both experts."""
    script = Path(__file__).parents[1] / "tiny_checkpoint.lua"
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["lua5.4", script, f"{scratch}/tiny"], check=True)
        pipeline = diffusers.WanPipeline.from_pretrained(f"{scratch}/tiny", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    tensors = {}
    embeds = pipeline.encode_prompt(PIPELINE_CALL["prompt"], PIPELINE_CALL["negative_prompt"], max_sequence_length=512)
    for name, text, rows in zip(("cond", "uncond"), ("prompt", "negative_prompt"), embeds):
        ids = torch.tensor(pipeline.tokenizer(prompt_clean(PIPELINE_CALL[text])).input_ids)
        assert 2 not in ids and not rows[0, len(ids):].any()  # 2: what transformers 5's class gives for unknown text
        tensors |= {f"ids_{name}": ids, f"context_{name}": rows[0, : len(ids)]}
    for shift in (3.0, 12.0):
        pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config, flow_shift=shift)
        steps = []
        frames = pipeline(
            **PIPELINE_CALL, generator=torch.Generator().manual_seed(42), output_type="np",
            callback_on_step_end=lambda _p, i, t, kwargs: steps.append(kwargs["latents"][0].clone()) or {}).frames[0]
        name = f"s{shift:g}"
        tensors |= {f"{name}.timesteps": pipeline.scheduler.timesteps, f"{name}.latents": torch.stack(steps)}
        if shift == 3:
            tensors[f"{name}.frames"] = torch.from_numpy(frames).permute(3, 0, 1, 2)
        print(f"pipeline {name}: t {pipeline.scheduler.timesteps.tolist()}, frames {frames.mean():.3f} ± {frames.std():.3f}")
    save_io(out / "pipeline_io.safetensors", tensors)
