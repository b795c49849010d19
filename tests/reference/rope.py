"""Rotary position embedding (arXiv:2104.09864) and its scalings, as llama.cpp reads them from a file's metadata."""
import numpy as np


def angles(model, positions, base=None, dim=None, scaled=True):
    """The angle of every pair, `[tokens, pairs]`, and the factor on cosine and sine. Some families rotate layers with
    a window by unscaled angles."""
    dim = dim or model.get("rope.dimension_count", model.head_dim)
    base = base or model.get("rope.freq_base", 10000.0)
    pairs = np.arange(dim // 2)
    plain = positions[:, None] * base ** (-2.0 * pairs / dim)
    if not scaled:
        return plain, 1.0

    # A tensor of divisors: llama 3.1's, or one of longrope's two (arXiv:2402.13753).
    trained = model.get("rope.scaling.original_context_length", model.get("context_length"))
    longer = model.get("context_length") > trained
    for name in ("rope_freqs.weight", f"rope_factors_{'long' if longer else 'short'}.weight"):
        divisors = model.tensor(name)
        if divisors is not None:
            plain = plain / divisors

    kind = model.get("rope.scaling.type", "linear")
    factor = model.get("rope.scaling.factor", 0) or model.get("rope.scale_linear", 0) or 1.0
    magnitude = model.get("rope.scaling.attn_factor", 1.0)
    if kind == "none":
        return plain, magnitude
    stretched = plain / factor
    if kind != "yarn":
        return stretched, magnitude
    # YaRN (arXiv:2309.00071): pairs that turn often within the first context keep their angle.
    def pair_that_turns(times):
        return dim * np.log(trained / (times * 2 * np.pi)) / (2 * np.log(base))
    first = max(0, np.floor(pair_that_turns(model.get("rope.scaling.yarn_beta_fast", 32.0))))
    last = min(dim - 1, np.ceil(pair_that_turns(model.get("rope.scaling.yarn_beta_slow", 1.0))))
    divide = np.clip((pairs - first) / max(0.001, last - first), 0, 1)
    return stretched * divide + plain * (1 - divide), magnitude * yarn_magnitude(model, factor)


def yarn_multiplier(model):
    """`mscale_all_dim` of published configurations; 0 without one. Files of deepseek2 have a tenth of it."""
    multiplier = model.get("rope.scaling.yarn_log_multiplier", 0.0)
    return multiplier / 0.1 if model.arch == "deepseek2" else multiplier


def yarn_magnitude(model, factor):
    """YaRN's factor on cosine and sine. Models with `mscale_all_dim` have that part in the scale of scores, or in none;
    the other, `mscale`, is not in the files: it is the same in deepseek2 and 1 elsewhere."""
    over_all = yarn_multiplier(model)
    alone = over_all if over_all and model.arch == "deepseek2" else 1.0
    return (1 + 0.1 * alone * np.log(factor)) / (1 + 0.1 * over_all * np.log(factor))


def rotate(x, angles, magnitude, interleaved):
    """Rotates the first numbers of every head of `x`, `[tokens, heads, head_dim]`. Pairs are neighbours if
    `interleaved`, else of the two halves."""
    cos, sin = magnitude * np.cos(angles)[:, None], magnitude * np.sin(angles)[:, None]
    out, dim = x.copy(), 2 * angles.shape[1]
    if interleaved:
        first, second = slice(0, dim, 2), slice(1, dim, 2)
    else:
        first, second = slice(0, dim // 2), slice(dim // 2, dim)
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., first] * sin + x[..., second] * cos
    return out
