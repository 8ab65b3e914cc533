//! Compares images with those that a network was trained on. The network's first batch
//! normalisation remembers the mean and the spread of every channel behind the first linear node;
//! images that give quite other ones were likely prepared in another way.

/// The outputs of a linear node in training, as mean and spread of every channel. After the
/// normalisation that is folded into the node, the training images had the mean `beta` and the
/// spread `|gamma|`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trained {
    pub(crate) node: usize,
    pub(crate) mean: Vec<f32>,
    pub(crate) spread: Vec<f32>,
}

/// Differences between the first activations of the calibration images and those of the training
/// images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FirstActivations {
    /// Distance of a channel's means, in spreads of the training images: the median over the
    /// channels.
    pub shift: f64,
    /// Spread of a channel, in spreads of the training images: the median over the channels.
    pub spread: f64,
}

impl FirstActivations {
    /// Returns whether a forgotten mean, deviation or scale is a likelier cause than unusual
    /// images.
    pub fn are_unlike_training(&self) -> bool {
        // Pixels without ImageNet's mean and deviation give a spread of 0.25, pixels from 0 to 255
        // one of 100 and more.
        self.shift > 1.0 || !(0.4..=2.5).contains(&self.spread)
    }
}

/// Sums, and sums of squares, of each channel of one node's outputs.
pub(crate) struct Seen {
    trained: Trained,
    count: f64,
    sums: Vec<(f64, f64)>,
}

impl Seen {
    pub(crate) fn new(trained: &Trained) -> Self {
        Self { trained: trained.clone(), count: 0.0, sums: vec![(0.0, 0.0); trained.mean.len()] }
    }

    /// Adds the outputs `y` of a node, if it is the one that is compared.
    pub(crate) fn add(&mut self, node: usize, y: &[f32]) {
        let positions = y.len() / self.sums.len().max(1);
        if node != self.trained.node || positions == 0 {
            return;
        }
        self.count += positions as f64;
        for ((sum, squares), channel) in self.sums.iter_mut().zip(y.chunks_exact(positions)) {
            *sum += channel.iter().map(|&v| f64::from(v)).sum::<f64>();
            *squares += channel.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        }
    }

    /// Returns the comparison, or `None` if too little was seen for one.
    pub(crate) fn compared(&self) -> Option<FirstActivations> {
        let Trained { mean, spread, .. } = &self.trained;
        // Channels that training switched off tell nothing.
        let largest = spread.iter().fold(0f32, |m, v| m.max(*v));
        let alive = (0..spread.len()).filter(|&c| spread[c] > 0.01 * largest);
        let (mut shifts, mut spreads): (Vec<f64>, Vec<f64>) = alive
            .map(|c| {
                let (m, squares) = (self.sums[c].0 / self.count, self.sums[c].1 / self.count);
                let unit = f64::from(spread[c]);
                ((m - f64::from(mean[c])).abs() / unit, (squares - m * m).max(0.0).sqrt() / unit)
            })
            .unzip();
        // From fewer values, such as those of a few vectors, no spread is known.
        (self.count >= 16.0)
            .then(|| Some(FirstActivations { shift: median(&mut shifts)?, spread: median(&mut spreads)? }))?
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::{FirstActivations, Seen, Trained};

    /// Two channels around their trained means, `scale` times as wide as in training and `shift`
    /// beside it.
    fn seen(scale: f32, shift: f32) -> Option<FirstActivations> {
        let trained = Trained { node: 3, mean: vec![1.0, -2.0], spread: vec![0.5, 4.0] };
        let mut seen = Seen::new(&trained);
        let channel = |mean: f32, spread: f32| {
            (0..64).map(move |i| mean + spread * (shift + if i % 2 == 0 { scale } else { -scale }))
        };
        let y: Vec<f32> = channel(1.0, 0.5).chain(channel(-2.0, 4.0)).collect();
        seen.add(2, &[1e9; 128]);
        seen.add(3, &y);
        seen.compared()
    }

    #[test]
    fn images_unlike_the_trainings_are_noticed() -> Result<(), &'static str> {
        for (scale, shift, unlike) in [
            (1.0, 0.0, false),
            (0.6, 0.4, false),
            (2.0, -0.5, false),
            (0.25, 0.0, true),
            (255.0, 0.0, true),
            (1.0, 2.0, true),
        ] {
            let found = seen(scale, shift).ok_or("nothing was compared")?;
            assert!((found.spread - f64::from(scale)).abs() < 1e-3 * f64::from(scale), "{found:?}");
            assert!((found.shift - f64::from(shift.abs())).abs() < 1e-3, "{found:?}");
            assert_eq!(found.are_unlike_training(), unlike, "{found:?}");
        }
        Ok(())
    }
}
