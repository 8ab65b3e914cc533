//! A fixed amount of work with the portable backends, for counting instructions:
//! `scripts/count-instructions`.

#![allow(clippy::print_stderr)]

use std::hint::black_box;

use jali_ring::sample::{self, derive_key, stream};
use jali_ring::wire::Writer;
use jali_ring::{Backend, Batch, Inputs, MaskVectors, Ntt, Poly, Ring, RingError, RowStore};

fn main() -> Result<(), RingError> {
    let mut args = std::env::args().skip(1);
    let (what, repeat) = (args.next().unwrap_or_default(), args.next().and_then(|n| n.parse().ok()).unwrap_or(1));
    let ring = Ring::with_backend(4096, &[34, 34], Backend::PORTABLE)?;
    let mut rng = stream(&derive_key("jali instruction count", &[]));
    let mut tiles: Vec<Poly<Ntt>> = (0..4).map(|_| ring.uniform(&mut rng)).collect();
    let mut store = RowStore::new(&ring, &[ring.limbs(); 2], 4)?;
    (0..8).for_each(|i| store.set(i / 4, i % 4, &tiles[i % 4]));
    // One thread, so that the count does not depend on who stole what.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    let Ok(_pool) = pool else { return Ok(()) };
    let vectors = MaskVectors::new(&ring, 4, &tiles, [&tiles, &tiles])?;
    let secret = tiles[0].clone();
    let mut small = vec![0; 4096];
    let mut batch = Batch::default();
    for _ in 0..repeat {
        match what.as_str() {
            "forward" => ring.forward_in_place(&mut tiles[0]),
            "inverse" => ring.inverse_in_place(&mut tiles[0]),
            "rows" => {
                store.prepare_into(&ring, Inputs::Elements(&[tiles.iter().collect()]), &mut batch)?;
                store.multiply_all(&ring, black_box(std::slice::from_ref(&batch)))?;
            }
            "mask" => drop(black_box(vectors.mask(&ring, &mut tiles, &secret)?)),
            "pack" => {
                let mut w = Writer::new();
                w.poly(&ring, &tiles[0]);
                black_box(w.finish());
            }
            "binomial" => sample::centred_binomial(Backend::PORTABLE, &mut rng, black_box(&mut small)),
            "lift" => drop(black_box(ring.lift(&small, 1000))),
            other => {
                eprintln!("unknown work {other:?}: forward, inverse, rows, mask, pack, binomial, lift");
                std::process::exit(2);
            }
        }
    }
    Ok(())
}
