"""Writes the tensors that most families share, under the names of GGUF."""
import math

from gguf import GGMLQuantizationType as T

from writer import Writer

VOCAB = 100


class Maker(Writer):
    """A file without a tokenizer, which says so."""

    def begin(self, layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, ff=96, eps="layer_norm_rms_epsilon",
              says_head_dim=True, tied=False, keys={}):
        """Writes metadata and embeddings. Converters write the size of heads where a configuration has it."""
        self.layers, self.hidden, self.heads, self.kv_heads = layers, hidden, heads, kv_heads
        self.head_dim, self.ff, self.tied = head_dim, ff, tied
        meta = {"vocab_size": VOCAB, "block_count": layers, "context_length": 1024, "embedding_length": hidden,
                "feed_forward_length": ff, "attention.head_count": heads, "attention.head_count_kv": kv_heads,
                f"attention.{eps}": 1e-5}
        if says_head_dim:
            meta |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
        self.meta(meta | keys)
        self.writer.add_string("tokenizer.ggml.model", "no_vocab")
        self.matrix("token_embd.weight", VOCAB, hidden, 2.0 if tied else math.sqrt(hidden))

    def end(self, norm_bias=False, bias=False, gain=2.0):
        self.norm("output_norm.weight", self.hidden)
        if norm_bias:
            self.bias("output_norm.bias", self.hidden)
        if not self.tied:
            self.linear("output", VOCAB, self.hidden, gain, bias)
        self.close()

    def norms(self, i, *names, bias=False, mean=1.0, deviation=0.2):
        for name in names:
            self.norm(f"blk.{i}.{name}.weight", self.hidden, mean, deviation)
            if bias:
                self.bias(f"blk.{i}.{name}.bias", self.hidden)

    def attention(self, i, bias=False, output_bias=False, q_norm=None, k_norm=None, fused=False, ty=None):
        """Scores need some spread, or attention is an average and hides mistakes."""
        b, q, kv = f"blk.{i}", self.heads * self.head_dim, self.kv_heads * self.head_dim
        if fused:
            self.linear(f"{b}.attn_qkv", q + 2 * kv, self.hidden, 1.4, bias, ty=ty)
        else:
            self.linear(f"{b}.attn_q", q, self.hidden, 1.6, bias, ty=ty)
            self.linear(f"{b}.attn_k", kv, self.hidden, 1.6, bias, ty=ty)
            self.linear(f"{b}.attn_v", kv, self.hidden, 1.0, bias, ty=ty)
        self.linear(f"{b}.attn_output", self.hidden, q, bias=output_bias, ty=ty)
        if q_norm:
            self.norm(f"{b}.attn_q_norm.weight", q_norm, 1.3)
            self.norm(f"{b}.attn_k_norm.weight", k_norm or q_norm, 1.3)

    def feed_forward(self, i, ff=None, kind="", fused=False):
        """Gated; `kind` is the end of the names of a shared expert's tensors."""
        b, ff = f"blk.{i}", ff or self.ff
        if fused:
            self.linear(f"{b}.ffn_up{kind}", 2 * ff, self.hidden, 1.5)
        else:
            self.linear(f"{b}.ffn_gate{kind}", ff, self.hidden, 1.5)
            self.linear(f"{b}.ffn_up{kind}", ff, self.hidden, 1.5)
        self.linear(f"{b}.ffn_down{kind}", self.hidden, ff)

    def experts(self, i, count, ff, bias=False, selection=None, router_gain=None, gain=1.5, ty=None):
        """The router and the experts' matrices, `[experts, outputs, inputs]`."""
        b, exact = f"blk.{i}", self.type in (T.F32, T.F16)
        router_gain = router_gain or (3.0 if exact else 6.0)
        self.linear(f"{b}.ffn_gate_inp", count, self.hidden, router_gain, bias, ty=T.F32)
        if selection:
            self.bias(f"{b}.exp_probs_b.bias", count, deviation=selection)
        for name, outputs, inputs in ("gate", ff, self.hidden), ("up", ff, self.hidden), ("down", self.hidden, ff):
            self.matrix(f"{b}.ffn_{name}_exps.weight", outputs, inputs, gain, count, ty)
            if bias:
                self.bias(f"{b}.ffn_{name}_exps.bias", count, outputs)
