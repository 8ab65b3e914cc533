//! Keys as bytes, and what does not fit.

use super::*;

#[test]
fn a_key_that_is_to_be_stored_unmasks_nothing() {
    let fixture = Fixture::new(4096, &[33, 33], 1, &[false], 7);
    let x = fixture.input(1);
    let (parameters, entropy) = (parameters(4096, &[33, 33], 22), SealEntropy::fixed([8; 32]));
    let wanted = pattern(0, [(1, 1), (1, 1), (4, 1)]).expand(4096).unwrap();
    let id = OperatorId { model: entropy.model_id(), operator: 0 };
    let setting = OperatorSetting { parameters: &parameters, id, wanted: &wanted, input_bound: BOUND };
    let shape = MatrixShape { rows: 1, blocks: 1, tiles: 1 };
    let matrix = PlainMatrix { shape, open: &[false], row: &|_| vec![vec![(0, 3)]] };
    let key = seal_matrix(setting, &matrix, KeepHints::No, &entropy, |_| Ok::<_, MaskError>(())).unwrap();
    assert_eq!(key.hint_bytes(), 0);
    let (_, pending) = key.mask(&x, RequestEntropy::fixed([1; 32]), context(0)).unwrap();
    assert_eq!(pending.finish(None), Err(MaskError::NoHints));
}

#[test]
fn unfit_inputs_and_rows_are_errors() {
    let fixture = Fixture::new(2048, &[45], 2, &[true], 1);
    let ask = |x: &[Vec<i64>]| fixture.key.mask(x, RequestEntropy::fixed([1; 32]), context(0)).map(|_| ()).unwrap_err();
    let mut x = fixture.input(1);
    assert!(matches!(ask(&x[..1]), MaskError::Shape { .. }));
    x[1].pop();
    assert!(matches!(ask(&x), MaskError::Shape { .. }));
    x[1].push(0);
    for beyond in [BOUND + 1, -BOUND - 1, i64::MAX, i64::MIN] {
        x[1][7] = beyond;
        assert_eq!(ask(&x), MaskError::InputRange { bound: BOUND }, "{beyond}");
    }
    x[1][7] = -BOUND;
    assert!(fixture.key.mask(&x, RequestEntropy::fixed([1; 32]), context(0)).is_ok());

    let id = OperatorId { model: [0; 16], operator: 0 };
    let entropy = SealEntropy::fixed([1; 32]);
    let wanted = &fixture.layer.wanted;
    let try_seal = |tiles: &[&[Tile]]| {
        let rows: Vec<PlainRow<'_>> = tiles.iter().map(|tiles| PlainRow { tiles, open: true }).collect();
        seal(&fixture.layer.parameters, id, &rows, 1, wanted, BOUND, &entropy).map(|_| ()).is_err()
    };
    assert!(try_seal(&[]));
    assert!(try_seal(&[&[]]));
    assert!(try_seal(&[&[vec![]], &[vec![], vec![]]]));
    assert!(try_seal(&[&[vec![(2048, 1)]]]));
    assert!(try_seal(&[&[vec![(5, 1), (5, 1)]]]), "two values at one place");
    let thin = parameters(2048, &[32], 12);
    let rows = [PlainRow { tiles: &[vec![(1, 1)]], open: true }];
    let refused = seal(&thin, id, &rows, 1, wanted, BOUND, &entropy).map(|_| ()).unwrap_err();
    assert_eq!(refused, MaskError::SmallPrime { got: 32, min: 33 });
    assert!(!try_seal(&[&[vec![(2047, 1)]]]));
}

#[test]
fn a_stored_key_works_again_and_takes_only_right_hints() {
    for fixture in [Fixture::new(4096, &[33, 33], 2, &[false, true], 8), Fixture::mixed(3, &[true, false, true], 9)] {
        let key = &fixture.key;
        let mut w = jali_ring::wire::Writer::new();
        key.encode(&mut w);
        let bytes = w.finish();
        assert!(bytes.len() <= key.encoded_len());
        let read = |bytes: &[u8]| {
            let mut r = jali_ring::wire::Reader::new(bytes);
            let wanted = key.form.wanted().clone();
            let shape = MatrixShape { rows: key.rows(), blocks: key.blocks(), tiles: key.block_tiles() };
            UnhintedKey::decode(&mut r, key.id, key.parameters.clone(), wanted, BOUND, shape)
        };
        for cut in (0..bytes.len()).step_by(101) {
            assert!(read(&bytes[..cut]).is_err(), "cut to {cut}");
        }
        let mut unhinted = read(&bytes).unwrap();
        let ring = fixture.ring();
        // One residue of any row and limb, a row too few, rows in another order.
        let hints = fixture.hints();
        let mut lies: Vec<Vec<Poly<Ntt>>> = vec![hints[1..].to_vec(), hints.iter().rev().cloned().collect()];
        for row in 0..key.rows() {
            for l in 0..hints[row].limbs() {
                let mut lie = hints.clone();
                let at = (row * 1237 + l * 411) % ring.degree();
                let v = &mut lie[row].limb_mut(l)[at];
                *v = ring.moduli()[l].add(*v, 1);
                lies.push(lie);
            }
        }
        for lie in lies {
            unhinted = *unhinted.accept(&pack(ring, &lie)).unwrap_err();
        }
        let mut beyond = pack(ring, &hints);
        beyond[..16].fill(0xff);
        unhinted = *unhinted.accept(&beyond).unwrap_err();
        let restored = unhinted.accept(&pack(ring, &hints)).unwrap();
        let x = fixture.input(4);
        let (masked, pending) = restored.mask(&x, RequestEntropy::fixed([4; 32]), context(0)).unwrap();
        assert_eq!(pending.finish(Some(fixture.answer(&fixture.serve(&masked)))).unwrap(), fixture.expected(&x));
        let (masked, pending) = restored.mask(&x, RequestEntropy::fixed([5; 32]), context(1)).unwrap();
        let mut rows = fixture.serve(&masked);
        rows[0].limb_mut(0)[70] ^= 1;
        assert_eq!(pending.finish(Some(fixture.answer(&rows))), Err(MaskError::AnswerRejected));
    }
}
