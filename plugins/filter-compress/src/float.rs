//! Arithmetic of updates for the floating-point types.

use plugin_api::Element;
use plugin_api::half::{bf16, f16};

/// A floating-point type. Updates are f32 for all types; differences and sums are rounded once.
pub(crate) trait Float: Element {
    /// The element as f32; f64 is rounded.
    fn wide(self) -> f32;
    /// The element nearest to a value.
    fn narrow(value: f32) -> Self;
    /// `self − base`.
    fn minus(self, base: Self) -> f32;
    /// `self + update`.
    fn plus(self, update: f32) -> Self;
    /// Whether it is neither NaN nor infinite.
    fn is_finite(self) -> bool;
}

impl Float for f32 {
    fn wide(self) -> f32 {
        self
    }
    fn narrow(value: f32) -> Self {
        value
    }
    fn minus(self, base: Self) -> f32 {
        self - base
    }
    fn plus(self, update: f32) -> Self {
        self + update
    }
    fn is_finite(self) -> bool {
        self.is_finite()
    }
}

impl Float for f64 {
    #[expect(clippy::cast_possible_truncation, reason = "rounding is intended")]
    fn wide(self) -> f32 {
        self as f32
    }
    fn narrow(value: f32) -> Self {
        value.into()
    }
    #[expect(clippy::cast_possible_truncation, reason = "rounding is intended")]
    fn minus(self, base: Self) -> f32 {
        (self - base) as f32
    }
    fn plus(self, update: f32) -> Self {
        self + Self::from(update)
    }
    fn is_finite(self) -> bool {
        self.is_finite()
    }
}

macro_rules! half {
    ($($t:ty)*) => {
        $(impl Float for $t {
            fn wide(self) -> f32 {
                self.to_f32()
            }
            fn narrow(value: f32) -> Self {
                Self::from_f32(value)
            }
            fn minus(self, base: Self) -> f32 {
                self.to_f32() - base.to_f32()
            }
            fn plus(self, update: f32) -> Self {
                Self::from_f32(self.to_f32() + update)
            }
            fn is_finite(self) -> bool {
                self.is_finite()
            }
        })*
    };
}
half!(f16 bf16);
