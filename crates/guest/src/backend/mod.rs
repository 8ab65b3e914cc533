//! One plain loop, compiled for several vector units.
//!
//! The loops of this crate are written over arrays of sixteen 32-bit words. `wide!` compiles
//! such a function once for every vector unit and calls the one that a [`Backend`] names. Every
//! backend runs the same source. Where that is not enough, as in `products`, a backend has a loop
//! of its own.

// The safety of every block in here is argued where it stands.
#![allow(unsafe_code)]

pub(crate) mod products;
#[cfg(target_arch = "x86_64")]
mod x86;

/// A vector unit that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend(Kind);

/// Which vector unit it is. Nobody outside of this module makes a [`Backend`] of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What every processor of the target has.
    Portable,
    /// AVX2 with BMI2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, DQ, BW, VL with BMI2.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Backend {
    /// The backends of this processor, the fastest last.
    pub fn all() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut found = vec![Self(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
                found.push(Self(Kind::Avx2));
            }
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl");
            if avx512 && is_x86_feature_detected!("bmi2") {
                found.push(Self(Kind::Avx512));
            }
        }
        found
    }

    /// The fastest backend of this processor, or the one that the variable `JALI_BACKEND` names.
    /// The keyed mode's `ifma` counts as `avx512`; a name that this processor lacks is ignored.
    pub fn best() -> Self {
        let wanted = std::env::var("JALI_BACKEND").unwrap_or_default();
        let wanted = if wanted == "ifma" { "avx512" } else { &wanted };
        let all = Self::all();
        let best = all[all.len() - 1];
        all.into_iter().find(|b| b.name() == wanted).unwrap_or(best)
    }

    /// The name: `portable`, `avx2` or `avx512`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
        }
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }
}

/// Compiles functions once for every backend; each takes the [`Backend`] as its first argument.
macro_rules! wide {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => { $(
        $(#[$doc])*
        // The arguments of the loop, and the backend.
        #[allow(clippy::too_many_arguments, unsafe_code)]
        $vis fn $name(backend: $crate::backend::Backend, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn plain($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,bmi2")]
            fn avx2($($arg: $ty),*) $(-> $ret)? { plain($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,bmi2")]
            fn avx512($($arg: $ty),*) $(-> $ret)? { plain($($arg),*) }
            match backend.kind() {
                $crate::backend::Kind::Portable => plain($($arg),*),
                // SAFETY: only `Backend::all` makes a `Backend` of this kind, and only after the
                // processor said that it has these instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::backend::Kind::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::backend::Kind::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    )* };
}
pub(crate) use wide;
