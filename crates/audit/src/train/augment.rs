//! Training images as they are not: shifted, mirrored, with a piece missing.

use chacha20::ChaCha20Rng;
use rand::RngExt;

use super::Schedule;

/// Appends an image of a shape, changed at random as a schedule says. Values that are no image stay
/// as they are.
pub(super) fn augment(shape: &[usize], schedule: &Schedule, image: &[f32], out: &mut Vec<f32>, rng: &mut ChaCha20Rng) {
    let [channels, h, w] = match shape {
        [c, h, w] => [*c, *h, *w],
        _ => return out.extend(image),
    };
    let (s, half) = (schedule.shift, schedule.hole / 2);
    let mut offset = || rng.random_range(0..=2 * s) as isize - s as isize;
    let (dy, dx) = (offset(), offset());
    let mirror = schedule.mirror && rng.random::<bool>();
    let hole = (half > 0).then(|| (rng.random_range(0..h), rng.random_range(0..w)));
    let is_cut = |i: usize, j: usize| hole.is_some_and(|(y, x)| i.abs_diff(y) < half && j.abs_diff(x) < half);
    for c in 0..channels {
        let plane = &image[c * h * w..][..h * w];
        for i in 0..h {
            let y = i as isize + dy;
            for j in 0..w {
                let x = (if mirror { w - 1 - j } else { j }) as isize + dx;
                let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&x);
                out.push(if inside && !is_cut(i, j) { plane[y as usize * w + x as usize] } else { 0.0 });
            }
        }
    }
}
