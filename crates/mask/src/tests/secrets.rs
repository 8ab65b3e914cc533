//! Nothing secret serves twice, and nothing secret is sent.

use super::*;

#[test]
fn request_secrets_are_never_reused() {
    let fixture = Fixture::new(4096, &[33, 33], 1, &[false], 7);
    let ring = fixture.ring();
    let (x, other) = (fixture.input(1), fixture.input(2));
    // The masked tile, and its error: x~ + a*s - x = t*e.
    let mask = |x: &[Vec<i64>], entropy: u8, counter: u64, image: u64| {
        let context = RequestContext { counter, image };
        let (mut masked, pending) = fixture.key.mask(x, RequestEntropy::fixed([entropy; 32]), context).unwrap();
        let masked = masked.remove(0);
        let mut noisy = masked.clone();
        ring.mul_add(&mut noisy, &public(&fixture.key)[0], &pending.secrets.s);
        (masked, ring.inverse(subtract(ring, &noisy, &ring.forward(ring.lift(&x[0], BOUND)))))
    };
    let (base, errors) = mask(&x, 1, 0, 0);
    // Under one secret the a*s parts cancel and a small difference is left.
    assert!(is_small(ring, subtract(ring, &base, &mask(&x, 1, 0, 0).0)), "the test can see reuse");
    for (what, masked) in [
        ("fresh randomness", mask(&x, 2, 0, 0)),
        ("counter", mask(&x, 1, 1, 0)),
        ("image", mask(&x, 1, 0, 1)),
        ("content", mask(&other, 1, 0, 0)),
    ] {
        assert!(!is_small(ring, subtract(ring, &base, &masked.0)), "{what}: same secret");
        assert_ne!(errors, masked.1, "{what}: same errors");
    }
    // At the public edge the operating system provides the randomness: two requests for one image
    // differ.
    let fresh = || fixture.key.mask(&x, RequestEntropy::from_os().unwrap(), context(0)).unwrap().0.remove(0);
    assert!(!is_small(fixture.ring(), subtract(fixture.ring(), &fresh(), &fresh())));
}

#[test]
fn masked_tiles_of_one_request_have_different_errors() {
    let fixture = Fixture::new(4096, &[33, 33], 2, &[true], 7);
    let x = vec![vec![0; 4096]; 2];
    let (masked, pending) = fixture.mask(&x, 1);
    // x~ + a*s = t*e: recover both error vectors with the secret and compare.
    let ring = fixture.ring();
    let errors: Vec<Vec<u64>> = (0..2)
        .map(|i| {
            let mut v = masked[i].clone();
            ring.mul_add(&mut v, &public(&fixture.key)[i], &pending.secrets.s);
            ring.inverse(v).limb(0).to_vec()
        })
        .collect();
    assert_ne!(errors[0], errors[1]);
}

#[test]
fn sealing_again_redraws_exactly_what_changed() {
    let parameters = parameters(4096, &[33, 33], 22);
    let ring = parameters.ring();
    let entropy = SealEntropy::fixed([8; 32]);
    let mut rng = stream(&derive_key("jali mask test", &[&[8]]));
    let rows = random_rows(4096, 2, &[false, false, true, false], &mut rng);
    let mut changed = rows.clone();
    changed[1].0[0][0].1 += 1; // a weight of a hidden row
    changed[2].1 = false; // the plan of an open row
    let (old, old_key) = seal_rows(&parameters, &rows, 1, 3, &entropy);
    let (same, _) = seal_rows(&parameters, &rows, 1, 3, &entropy);
    let (new, new_key) = seal_rows(&parameters, &changed, 1, 3, &entropy);
    assert_eq!(old.rows, same.rows, "an unchanged model stays byte-identical");
    assert_eq!((&old.rows[0], &old.rows[3]), (&new.rows[0], &new.rows[3]), "so does an unchanged row");
    let (SealedRow::Hidden(before), SealedRow::Hidden(after)) = (&old.rows[1], &new.rows[1]) else { panic!() };
    for (b, a) in before.iter().zip(after) {
        assert!(!is_small(ring, subtract(ring, b, a)), "same secret or error under new content opens both");
    }
    // A fresh secret alone would not do: with the same errors the difference is free of noise.
    let before = row_errors(&old, &old_key, 1, &rows[1].0);
    let after = row_errors(&new, &new_key, 1, &changed[1].0);
    assert!(before.iter().zip(&after).all(|(b, a)| b != a), "errors are drawn anew as well");
    assert_ne!(before[0], before[1], "tiles do not share errors");
    assert_ne!(row_errors(&old, &old_key, 0, &rows[0].0), before, "nor do rows");
    assert!(matches!(new.rows[2], SealedRow::Hidden(_)));
    // Another layer, another sealing secret: nothing is shared, not even the public vector.
    let (elsewhere, _) = seal_rows(&parameters, &rows, 1, 4, &entropy);
    let (stranger, _) = seal_rows(&parameters, &rows, 1, 3, &SealEntropy::fixed([9; 32]));
    assert!(old.rows[0] != elsewhere.rows[0] && old.rows[0] != stranger.rows[0]);
}

#[test]
fn rows_of_equal_content_have_secrets_of_their_own() {
    let parameters = parameters(4096, &[33, 33], 22);
    let ring = parameters.ring();
    let tiles: Vec<Tile> = vec![vec![(5, 7)], vec![]];
    let (layer, _) =
        seal_rows(&parameters, &[(tiles.clone(), false), (tiles, false)], 1, 0, &SealEntropy::fixed([1; 32]));
    let (SealedRow::Hidden(a), SealedRow::Hidden(b)) = (&layer.rows[0], &layer.rows[1]) else { panic!() };
    for (a, b) in a.iter().zip(b) {
        assert!(!is_small(ring, subtract(ring, a, b)));
    }
}

#[test]
fn hidden_tiles_of_zeros_are_sealed_and_open_rows_are_plain() {
    let parameters = parameters(4096, &[33, 33], 22);
    let zero = vec![vec![], vec![]];
    let open: Vec<Tile> = vec![vec![(5, -7)], vec![(9, 120)]];
    let (layer, key) =
        seal_rows(&parameters, &[(zero, false), (open.clone(), true)], 1, 0, &SealEntropy::fixed([1; 32]));
    let SealedRow::Hidden(sealed) = &layer.rows[0] else { panic!() };
    // W~ + a*s' = t*e': every tile has errors of its own under the secret.
    let ring = parameters.ring();
    let a = public(&key);
    let errors = sealed.iter().zip(&a).map(|(w, a)| {
        let mut v = w.clone();
        ring.mul_add(&mut v, a, &secret(&key, 0));
        ring.inverse(v).limb(0).to_vec()
    });
    let errors: Vec<Vec<u64>> = errors.collect();
    assert!(errors.iter().all(|e| e.iter().filter(|&&v| v != 0).count() > 3000) && errors[0] != errors[1]);
    for tile in sealed {
        let zeros = tile.limb(0).iter().filter(|&&v| v == 0).count();
        assert!(zeros < 3, "a sealed zero tile looks uniform, {zeros} zeros");
    }
    assert_eq!(layer.rows[1], SealedRow::Open(open));
}
