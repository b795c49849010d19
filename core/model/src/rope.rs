//! Rotary position embedding: every variant becomes one frequency for each pair of numbers and one magnitude.

use realm_gguf::Metadata;

use crate::Error;

/// The scaling of rope beyond the context of the original training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// No scaling, or only by a tensor of factors.
    None,
    /// All frequencies are divided by `factor` (Chen et al., arXiv:2306.15595).
    Linear {
        /// Scaling factor.
        factor: f32,
    },
    /// Low frequencies are divided by `factor`, high ones kept, with a ramp between (Peng et al.,
    /// arXiv:2309.00071).
    Yarn {
        /// Scaling factor.
        factor: f32,
        /// Context of the original training, in tokens.
        original_context: usize,
        /// Rotations over that context above which a frequency is kept.
        beta_fast: f32,
        /// Rotations over that context below which a frequency is divided.
        beta_slow: f32,
        /// The magnitude of cosine and sine.
        magnitude: f32,
    },
    /// Frequencies are divided by a tensor of factors, of which files have one for short and one for long
    /// contexts (Ding et al., arXiv:2402.13753). Realm uses the long one, because it offers the model's whole
    /// context.
    LongRope {
        /// Context of the original training, in tokens.
        original_context: usize,
        /// The magnitude.
        attention_factor: f32,
    },
}

impl RopeScaling {
    pub(crate) fn from_metadata(m: &Metadata, prefix: &str, context: usize) -> Result<Self, Error> {
        let key = |name: &str| format!("{prefix}.rope.scaling.{name}");
        let float = |name: &str, default: f32| -> Result<f32, Error> {
            match m.f32(&key(name))? {
                None => Ok(default),
                Some(v) if v.is_finite() && v > 0.0 => Ok(v),
                Some(v) => {
                    Err(Error::InvalidModel(format!("metadata `{}` is {v}; it has to be above 0", key(name))))
                }
            }
        };
        let kind = m.str(&key("type"))?;
        // Old files have only the factor.
        let factor = match m.f32(&key("factor"))? {
            Some(0.0) | None => {
                m.f32(&format!("{prefix}.rope.scale_linear"))?.filter(|&f| f != 0.0).unwrap_or(1.0)
            }
            Some(_) => float("factor", 1.0)?,
        };
        if !factor.is_finite() || factor <= 0.0 {
            return Err(Error::InvalidModel(format!("a rope scaling factor of {factor}")));
        }
        let original_context =
            m.u64(&key("original_context_length"))?.unwrap_or(context as u64).clamp(1, 1 << 32) as usize;
        match kind {
            Some("yarn") => Ok(Self::Yarn {
                factor,
                original_context,
                beta_fast: float("yarn_beta_fast", 32.0)?,
                beta_slow: float("yarn_beta_slow", 1.0)?,
                magnitude: float("attn_factor", 1.0)? * yarn_magnitude(factor, 1.0),
            }),
            Some("longrope") => {
                Ok(Self::LongRope { original_context, attention_factor: float("attn_factor", 1.0)? })
            }
            None if m.get(&key("attn_factor")).is_some() => {
                Ok(Self::LongRope { original_context, attention_factor: float("attn_factor", 1.0)? })
            }
            Some("linear") | None if factor != 1.0 => Ok(Self::Linear { factor }),
            Some("none" | "linear") | None => Ok(Self::None),
            Some(other) => {
                let other: String = other.chars().take(32).flat_map(char::escape_debug).collect();
                Err(Error::Unsupported(format!(
                    "rope scaling `{other}` is not supported; none, linear, yarn and longrope are"
                )))
            }
        }
    }
}

/// Returns the magnitude that YaRN gives to cosine and sine if context is stretched `factor` times, with the
/// logarithm multiplied by `multiplier`.
pub(crate) fn yarn_magnitude(factor: f32, multiplier: f32) -> f32 {
    1.0 + 0.1 * multiplier * factor.ln()
}

/// Returns frequencies in radians per position, `[dim / 2]`, and the magnitude of cosine and sine.
///
/// The frequency of pair `i` is `base^(-2i / dim)`, stretched by `scaling` and divided by `factors` if there
/// are any.
pub fn frequencies(dim: usize, base: f32, scaling: RopeScaling, factors: Option<&[f32]>) -> (Vec<f32>, f32) {
    let mut magnitude = 1.0;
    let plain = (0..dim / 2).map(|i| (base as f64).powf(-2.0 * i as f64 / dim as f64));
    let stretched: Vec<f64> = match scaling {
        RopeScaling::None => plain.collect(),
        RopeScaling::Linear { factor } => plain.map(|f| f / factor as f64).collect(),
        RopeScaling::LongRope { attention_factor, .. } => {
            magnitude = attention_factor;
            plain.collect()
        }
        RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, magnitude: own } => {
            magnitude = own;
            // The pair that turns `rotations` times over the original context.
            let pair = |rotations: f32| {
                let turns = original_context as f64 / (rotations as f64 * std::f64::consts::TAU);
                dim as f64 * turns.ln() / (2.0 * (base as f64).ln())
            };
            let low = pair(beta_fast).floor().max(0.0);
            let high = pair(beta_slow).ceil().min(dim as f64 - 1.0);
            plain
                .enumerate()
                .map(|(i, f)| {
                    let keep = 1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    f / factor as f64 * (1.0 - keep) + f * keep
                })
                .collect()
        }
    };
    let divided = stretched.iter().enumerate().map(|(i, f)| match factors {
        Some(factors) => (f / factors[i] as f64) as f32,
        None => *f as f32,
    });
    (divided.collect(), magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yarn_keeps_high_frequencies_and_divides_low_ones() {
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            original_context: 2048,
            beta_fast: 32.0,
            beta_slow: 1.0,
            magnitude: yarn_magnitude(4.0, 1.0),
        };
        let (plain, one) = frequencies(64, 10_000.0, RopeScaling::None, None);
        let (yarn, magnitude) = frequencies(64, 10_000.0, scaling, None);
        assert_eq!((one, plain[0]), (1.0, 1.0));
        assert!((magnitude - (1.0 + 0.1 * 4f32.ln())).abs() < 1e-6);
        assert_eq!(yarn[0], plain[0]);
        assert!((yarn[31] * 4.0 / plain[31] - 1.0).abs() < 1e-6);
        let ratios: Vec<f32> = yarn.iter().zip(&plain).map(|(y, p)| p / y).collect();
        assert!(ratios.is_sorted(), "{ratios:?}");
    }

    #[test]
    fn factors_divide() {
        let factors: Vec<f32> = (1..=4).map(|i| i as f32).collect();
        let (plain, _) = frequencies(8, 500.0, RopeScaling::None, None);
        let (divided, _) = frequencies(8, 500.0, RopeScaling::Linear { factor: 2.0 }, Some(&factors));
        for i in 0..4 {
            assert!((divided[i] * 2.0 * factors[i] / plain[i] - 1.0).abs() < 1e-6);
        }
    }
}
