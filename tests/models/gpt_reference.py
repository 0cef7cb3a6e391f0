"""GPT-Neo in NumPy and float64, layer by layer, from a foreign state dict."""

import numpy as np


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias
    )


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attend(q, k, v, window, segment):
    """Of one head in one row; places one by one."""
    out = np.zeros_like(v)
    for i in range(len(q)):
        seen = [j for j in range(i + 1) if i - j < window and segment[j] == segment[i]]
        score = np.exp(k[seen] @ q[i] - np.max(k[seen] @ q[i]))
        out[i] = score @ v[seen] / score.sum()
    return out


def states(state, heads, window, tokens, segment, position):
    """The hidden states of one row after 0, 1, ... layers, the last one normed."""
    state = {
        name.removeprefix("transformer."): np.asarray(array, np.float64)
        for name, array in state.items()
    }
    x = state["wte.weight"][tokens] + state["wpe.weight"][position]
    found = [x]
    depth = sum(name.endswith("ln_1.weight") for name in state)
    for layer in range(depth):
        own = {
            name.removeprefix(f"h.{layer}."): array
            for name, array in state.items()
            if name.startswith(f"h.{layer}.")
        }
        y = layer_norm(x, own["ln_1.weight"], own["ln_1.bias"])
        q, k, v = (
            np.split(y @ own[f"attn.attention.{n}_proj.weight"].T, heads, axis=1)
            for n in "qkv"
        )
        reach = window if layer % 2 else len(tokens)
        out = [attend(*qkv, reach, segment) for qkv in zip(q, k, v, strict=True)]
        out = np.concatenate(out, axis=1) @ own["attn.attention.out_proj.weight"].T
        x = x + out + own["attn.attention.out_proj.bias"]
        y = layer_norm(x, own["ln_2.weight"], own["ln_2.bias"])
        y = gelu(y @ own["mlp.c_fc.weight"].T + own["mlp.c_fc.bias"])
        x = x + y @ own["mlp.c_proj.weight"].T + own["mlp.c_proj.bias"]
        found.append(x)
    found[-1] = layer_norm(x, state["ln_f.weight"], state["ln_f.bias"])
    return found
