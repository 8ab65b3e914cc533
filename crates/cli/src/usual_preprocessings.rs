//! Whether another of the usual ways to make inputs of pixels is right more often.

use jali::{JaliError, Preprocess};

use rayon::prelude::*;

use super::text::{note, percent, progress};

/// Says so where one of the usual ways from images to inputs is right far more often than the one
/// that was asked for.
pub(super) fn warn_of_better(
    chosen: &Preprocess,
    shape: &[usize],
    count: usize,
    right: impl Fn(usize, &Preprocess) -> Result<bool, JaliError> + Sync,
) -> anyhow::Result<()> {
    let usual = usual_preprocessings(chosen).into_iter().filter(|(_, p)| p != chosen && p.check(shape).is_ok());
    let all: Vec<_> = std::iter::once((String::new(), chosen.clone())).chain(usual).collect();
    let bar = progress(all.len() * count, "other preprocessing");
    let mut percents = vec![];
    for (_, p) in &all {
        let hits = (0..count).into_par_iter().map(|i| right(i, p)).inspect(|_| bar.inc(1));
        percents.push(percent(hits.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|hit| *hit).count(), count));
    }
    bar.finish_and_clear();
    let best = (0..all.len()).max_by(|&a, &b| percents[a].total_cmp(&percents[b])).unwrap_or(0);
    // Twenty points of 48 images are far beyond what chance does to them.
    if percents[best] > percents[0] + 20.0 {
        note(format!(
            "warning: with {} {:.0} % of the first {count} images are right, as asked for {:.0} %: were mean, std or scale forgotten?",
            all[best].0, percents[best], percents[0]
        ))?;
    }
    Ok(())
}

/// Ways from pixels to inputs that most networks were trained with, and how one asks for them.
fn usual_preprocessings(chosen: &Preprocess) -> Vec<(String, Preprocess)> {
    let way = |options: &str, scale: f32, mean: &[f32], std: &[f32]| {
        (options.to_string(), Preprocess { input_scale: scale, mean: mean.into(), std: std.into(), ..chosen.clone() })
    };
    vec![
        way("--input-scale 1/255 --mean 0 --std 1", 1.0 / 255.0, &[], &[]),
        way("--input-scale 1 --mean 0 --std 1", 1.0, &[], &[]),
        way("--input-scale 1/255 --mean 0.5 --std 0.5", 1.0 / 255.0, &[0.5], &[0.5]),
        way(
            "--input-scale 1/255 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
            1.0 / 255.0,
            &[0.485, 0.456, 0.406],
            &[0.229, 0.224, 0.225],
        ),
    ]
}
