//! The parameters of operations as one part sees them.

use super::buffer::Here;
use super::member::{AnyBuffer, Member, Part};
use super::{Experts, PartsBackend, Vector};
use crate::checks::expect;
use crate::{Attention, Error, Lora, MatMul, Mixture, Norm};

fn vector_on<'a, M: Member>(
    b: &M,
    vector: Option<&'a Vector>,
    part: usize,
) -> Result<Option<&'a M::Vector>, Error> {
    vector.map(|vector| b.vector_in(vector.at(part)?)).transpose()
}

/// Converts a norm to that of one part.
pub(super) fn norm_on<'a, M: Member>(
    b: &M,
    norm: &Norm<'a, PartsBackend>,
    part: usize,
) -> Result<Norm<'a, M>, Error> {
    let (weight, bias) = (vector_on(b, norm.weight, part)?, vector_on(b, norm.bias, part)?);
    Ok(Norm { kind: norm.kind, weight, bias, eps: norm.eps })
}

/// Converts adapters to those of one part.
pub(super) fn loras_on<'a, M: Member>(
    b: &M,
    all: &'a [Lora<'a, PartsBackend>],
    part: usize,
) -> Result<Vec<Lora<'a, M>>, Error> {
    let here = |lora: &'a Lora<'a, PartsBackend>| {
        expect("the part of an adapter", lora.pair.part, part)?;
        Ok(Lora { pair: b.low_rank_in(&lora.pair.of)?, scale: lora.scale, rows: lora.rows })
    };
    all.iter().map(here).collect()
}

/// Converts the parameters of a mixture whose weights are all on `part`. `loras` are its adapters on the
/// part.
pub(super) fn mixture_on<'a, M: Member>(
    b: &M,
    spec: &Mixture<'a, PartsBackend>,
    part: usize,
    [gate_lora, up_lora, down_lora]: [&'a [Lora<'a, M>]; 3],
) -> Result<Mixture<'a, M>, Error> {
    expect("the part of a router", spec.router.part, part)?;
    let experts = |experts: &'a Experts| {
        expect("the part of experts", experts.part, part)?;
        b.experts_in(&experts.of)
    };
    Ok(Mixture {
        router: b.matrix_in(&spec.router.of)?,
        router_bias: vector_on(b, spec.router_bias, part)?,
        routing: spec.routing,
        selection_bias: vector_on(b, spec.selection_bias, part)?,
        gate: spec.gate.map(experts).transpose()?,
        up: experts(spec.up)?,
        down: experts(spec.down)?,
        gate_bias: vector_on(b, spec.gate_bias, part)?,
        up_bias: vector_on(b, spec.up_bias, part)?,
        down_bias: vector_on(b, spec.down_bias, part)?,
        activation: spec.activation,
        gate_lora,
        up_lora,
        down_lora,
        accumulate: spec.accumulate,
    })
}

/// Converts the parameters of attention to those of one part.
pub(super) fn attention_on<'a, M: Member>(
    b: &M,
    spec: &Attention<'a, PartsBackend>,
    part: usize,
    rotations: Option<&'a Here<'a>>,
) -> Result<Attention<'a, M>, Error> {
    let norm = |norm: Option<Norm<'a, PartsBackend>>| norm.map(|norm| norm_on(b, &norm, part)).transpose();
    Ok(Attention {
        layer: spec.layer,
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        head_dim: spec.head_dim,
        q_norm: norm(spec.q_norm)?,
        k_norm: norm(spec.k_norm)?,
        norm_span: spec.norm_span,
        norm_after_rope: spec.norm_after_rope,
        rotations: rotations.map(|rotations| b.buffer_in(rotations.get()?)).transpose()?,
        style: spec.style,
        temperature: spec.temperature,
        scale: spec.scale,
        window: spec.window,
        soft_cap: spec.soft_cap,
        sinks: vector_on(b, spec.sinks, part)?,
    })
}

/// Products whose weights are all on `part`.
pub(super) fn matmul_on<'a, M: Member>(
    b: &M,
    parts: &[Part],
    part: usize,
    x: &AnyBuffer,
    rows: usize,
    jobs: &mut [MatMul<'a, PartsBackend>],
) -> Result<(), Error> {
    let mut loras = Vec::with_capacity(jobs.len());
    for job in &*jobs {
        loras.push(loras_on(b, job.lora, part)?);
    }
    let mut inner = Vec::with_capacity(jobs.len());
    for (job, lora) in jobs.iter_mut().zip(&loras) {
        let out = match job.accumulate {
            true => job.out.own(parts, part)?,
            false => job.out.fill(parts, part, rows)?,
        };
        inner.push(MatMul {
            weight: b.matrix_in(&job.weight.of)?,
            bias: vector_on(b, job.bias, part)?,
            out: b.buffer_in_mut(out)?,
            accumulate: job.accumulate,
            lora,
        });
    }
    b.matmul(b.buffer_in(x)?, &mut inner)
}
