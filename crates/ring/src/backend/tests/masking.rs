//! The client's pass over all tiles against wide integers.

use super::*;

/// The same polynomial operation in wide integers, coefficient by coefficient.
fn combine(ring: &Ring, f: impl Fn(usize, usize, u128) -> u128) -> Poly<Ntt> {
    let mut out = ring.zero();
    for (l, m) in ring.moduli().iter().enumerate() {
        let p = u128::from(m.value());
        out.limb_mut(l).iter_mut().enumerate().for_each(|(k, o)| *o = (f(l, k, p) % p) as u64);
    }
    out
}

#[test]
fn masking_agrees_with_wide_integers() {
    // Primes with and without folds between few products; blocks of the matrix of one and of many
    // tiles.
    for (bits, width, blocks, extreme) in [
        (34, 3, 1, false),
        (34, 3, 2, true),
        (47, 5, 1, true),
        (47, 70, 1, true),
        (50, 2, 1, true),
        (50, 5, 4, true),
        (28, 1, 3, false),
    ] {
        let tiles = width * blocks;
        for backend in backends() {
            let ring = Ring::with_backend(1024, &[bits, bits], backend).unwrap();
            let element = |seed: usize| if extreme { top(&ring) } else { random_polys(&ring, 1, seed as u8).remove(0) };
            let list = |seed: usize| -> Vec<Poly<Ntt>> { (0..tiles).map(|i| element(seed + i)).collect() };
            let (x, a, u0, u1, s) = (list(0), list(50), list(100), list(150), element(200));
            let vectors = MaskVectors::new(&ring, width, &a, [&u0, &u1]).unwrap();
            assert_eq!((vectors.tiles(), vectors.width()), (tiles, width));
            for i in 0..tiles {
                let held = [Vector::Public, Vector::Check(0), Vector::Check(1)].map(|v| vectors.element(&ring, v, i));
                assert!(held == [a[i].clone(), u0[i].clone(), u1[i].clone()], "{}", backend.name());
            }
            let mut masked = x.clone();
            let sums = vectors.mask(&ring, &mut masked, &s).unwrap();
            let at = |p: &Poly<Ntt>, l: usize, k: usize| u128::from(p.limb(l)[k]);
            for i in 0..tiles {
                let want = combine(&ring, |l, k, p| at(&x[i], l, k) + p - at(&a[i], l, k) * at(&s, l, k) % p);
                assert!(masked[i] == want, "{}, tile {i}, {bits} bits", backend.name());
            }
            let sum = |u: &[Poly<Ntt>], v: &[Poly<Ntt>]| {
                combine(&ring, |l, k, p| u.iter().zip(v).map(|(u, v)| at(u, l, k) * at(v, l, k) % p).sum())
            };
            assert_eq!(sums.z.len(), blocks);
            for (z, (a, x)) in sums.z.iter().zip(a.chunks(width).zip(x.chunks(width))) {
                assert!(**z == sum(a, x), "{}, z, {bits} bits", backend.name());
            }
            assert!(*sums.checks[0] == sum(&u0, &masked) && *sums.checks[1] == sum(&u1, &masked), "{}", backend.name());
        }
    }
    let ring = Ring::new(1024, &[34]).unwrap();
    let (two, three) = (vec![ring.zero(); 2], vec![ring.zero(); 3]);
    let vectors = MaskVectors::new(&ring, 1, &two, [&two, &two]).unwrap();
    assert!(MaskVectors::new(&ring, 1, &three, [&two, &two]).is_err());
    assert!(MaskVectors::new(&ring, 2, &three, [&three, &three]).is_err());
    assert!(MaskVectors::new(&ring, 0, &two, [&two, &two]).is_err());
    assert!(vectors.mask(&ring, &mut three.clone(), &ring.zero()).is_err());
    let other = Ring::new(2048, &[34]).unwrap();
    assert!(vectors.mask(&ring, &mut two.clone(), &other.zero()).is_err());
    let mut foreign = vec![other.zero(); 2];
    assert!(vectors.mask(&other, &mut foreign, &other.zero()).is_err());
    let same_size = Ring::new(1024, &[35]).unwrap();
    assert!(vectors.mask(&same_size, &mut two.clone(), &ring.zero()).is_err());
}

/// More tiles than a row may have are held in several stores.
#[test]
fn masking_of_very_many_tiles_is_done_in_parts() {
    let ring = Ring::new(1024, &[28]).unwrap();
    let tiles = 3 * 1400;
    let polys = random_polys(&ring, tiles, 1);
    let vectors = MaskVectors::new(&ring, 3, &polys, [&polys, &polys]).unwrap();
    assert!(MaskVectors::bytes_needed(&ring, 3, tiles) > MaskVectors::bytes_needed(&ring, 3, 4096 / 3 * 3));
    let mut x = polys.clone();
    let sums = vectors.mask(&ring, &mut x, &ring.zero()).unwrap();
    assert_eq!(sums.z.len(), 1400);
    // Nothing was masked: all sums are those of squares.
    let (mut all, last) = (ring.zero(), tiles - 3);
    for (i, p) in polys.iter().enumerate() {
        ring.mul_add(&mut all, p, p);
        assert!(x[i] == *p);
    }
    assert!(*sums.checks[0] == all && *sums.checks[1] == all);
    // With a secret: what is masked in the second store is masked with its own tiles' elements.
    let s = random_polys(&ring, 1, 9).remove(0);
    let mut masked = polys.clone();
    let with_secret = vectors.mask(&ring, &mut masked, &s).unwrap();
    let mut check = ring.zero();
    polys.iter().zip(&masked).for_each(|(u, x)| ring.mul_add(&mut check, u, x));
    assert!(*with_secret.checks[0] == check && *with_secret.z[1399] == *sums.z[1399]);
    let mut back = masked[last].clone();
    ring.mul_add(&mut back, &polys[last], &s);
    assert!(back == polys[last] && masked[last] != polys[last]);
    let mut block = ring.zero();
    polys[last..].iter().for_each(|p| ring.mul_add(&mut block, p, p));
    assert!(*sums.z[1399] == block && vectors.element(&ring, Vector::Check(1), last) == polys[last]);
    assert!(vectors.element(&ring, Vector::Public, tiles) == ring.zero());
}
