//! Gates: what both parties compute together on masked public values.
//!
//! | module | what it holds |
//! |---|---|
//! | [`comparison`] | which bits are dealt and opened to compare a public value with a mask |
//! | [`thermometer`] | dealing, looking up and finishing comparisons, bit-sliced |
//! | [`clamp`] | ReLU, ReLU6, Clip and requantisation |
//! | [`maximum`] | the larger of two values |
//! | [`shares`] | what a party holds for a step of gates |

pub(crate) mod clamp;
pub(crate) mod comparison;
pub(crate) mod maximum;
pub(crate) mod shares;
pub(crate) mod thermometer;

#[cfg(test)]
mod tests;
