//! Instruction sets, detected at run time.

use std::fmt;

use crate::Error;

/// An instruction set that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Plain code; defines the results.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL, DQ and VNNI.
    Avx512,
    /// 64-bit Arm.
    Neon,
    /// 64-bit Arm with dot products of bytes.
    NeonDot,
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512 VNNI",
            Self::Neon => "NEON",
            Self::NeonDot => "NEON dotprod",
        })
    }
}

impl Isa {
    /// Returns the instruction sets that this machine runs, the best one last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other processors add nothing")]
        let mut all = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            all.push(Self::Avx2);
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni")
            {
                all.push(Self::Avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            all.push(Self::Neon);
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                all.push(Self::NeonDot);
            }
        }
        all
    }

    /// Returns the best instruction set, or the one named by the variable `REALM_CPU`.
    pub(crate) fn choose() -> Result<Self, Error> {
        let available = Self::available();
        let best = available[available.len() - 1];
        let Ok(name) = std::env::var("REALM_CPU") else { return Ok(best) };
        let wanted = match name.as_str() {
            "scalar" => Self::Scalar,
            "avx2" => Self::Avx2,
            "avx512" => Self::Avx512,
            "neon" => Self::Neon,
            "neon-dotprod" => Self::NeonDot,
            _ => {
                let why =
                    format!("REALM_CPU is `{name}`; it can be scalar, avx2, avx512, neon or neon-dotprod");
                return Err(Error::InvalidArgument(why));
            }
        };
        if available.contains(&wanted) {
            return Ok(wanted);
        }
        Err(Error::Unsupported(format!("REALM_CPU asks for {wanted}, which this processor does not have")))
    }
}
