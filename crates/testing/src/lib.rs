//! What the tests of several crates share. It uses none of them: an oracle must not know what it
//! judges.
#![forbid(unsafe_code)]

/// Adds the negacyclic product of a sparse tile (index, value) and an input to `y`, in plain
/// integers: what lies beyond the last coefficient comes back at the beginning with the other sign.
pub fn add_negacyclic_product(y: &mut [i64], tile: &[(u32, i32)], x: &[i64]) {
    let n = y.len();
    for &(i, w) in tile {
        for (j, &x) in x.iter().enumerate().filter(|(_, x)| **x != 0) {
            let k = i as usize + j;
            y[k % n] += if k < n { x * i64::from(w) } else { -x * i64::from(w) };
        }
    }
}

/// Returns `n` numbers from -1 to 1 that follow from the seed.
pub fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 24) as f32) * 2.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// A source of positions; its numbers need not be good (xorshift64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A position below `n`, 0 if there is none.
    pub fn below(&mut self, n: usize) -> usize {
        (self.draw() % n.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_come_back_with_the_other_sign() {
        let mut y = vec![0; 4];
        // (2 X^3 - X) (1 + 5 X^2) = 2 X^3 + 10 X^5 - X - 5 X^3, and X^4 = -1.
        add_negacyclic_product(&mut y, &[(1, -1), (3, 2)], &[1, 0, 5, 0]);
        assert_eq!(y, [0, -11, 0, -3]);
    }
}
