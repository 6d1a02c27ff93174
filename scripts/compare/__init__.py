"""What compare_torch.py measures: a module for each row of the comparison, and what they share.

    results.py    a measured row, its bar, and the tables (no PyTorch)
    engine.py     moonkiln as a subprocess (no PyTorch)
    context.py    device, timing, budget
    wan.py        diffusers' transformer with random weights, its inputs, its sizes
    files.py      tensors to safetensors files, many at a time
    attention.py linears.py steps.py decoder.py text.py errors.py repeats.py   the rows: each has `cases(ctx)`
    graphs/       what of the transformer is timed alone, as graphs for moonkiln
"""
