//! Every way in which a server can lie is caught.

use super::*;

#[test]
fn a_lying_server_is_caught() {
    let open = [false, true, false];
    let mixed = Fixture::mixed(2, &open, 2);
    for fixture in [Fixture::new(4096, &[33, 33], 2, &open, 2), mixed, Fixture::blocks(2, &open, 3, 2)] {
        lies_are_caught(&fixture);
    }
}

fn lies_are_caught(fixture: &Fixture) {
    let honest = fixture.attack(|_, _| {});
    assert_eq!(honest.unwrap(), fixture.expected(&fixture.input(1)));
    let t = fixture.layer.parameters.t() as u128;
    let q: u128 = fixture.ring().moduli().iter().map(|m| u128::from(m.value())).product();
    let largest = t * (q / (2 * t));
    // On one wanted coefficient, one limb or all of them, in the first and the last row.
    for delta in [1, t, largest, q - 1] {
        for (row, &held) in fixture.key.form.limbs().iter().enumerate() {
            for limbs in [vec![0], vec![1], vec![0, 1]] {
                if limbs == [held] {
                    continue; // There is no such residue.
                }
                let lie = |ring: &Ring, rows: &mut Vec<Poly<Coefficient>>| {
                    for &l in &limbs {
                        let m = ring.moduli()[l];
                        let v = &mut rows[row].limb_mut(l)[70];
                        *v = m.add(*v, (delta % u128::from(m.value())) as u64);
                    }
                };
                assert_eq!(fixture.attack(lie), Err(MaskError::AnswerRejected), "{delta} row {row} limbs {limbs:?}");
            }
        }
    }
    assert_eq!(fixture.attack(|_, rows| rows.swap(0, 2)), Err(MaskError::AnswerRejected), "rows swapped");
    assert_eq!(fixture.attack(|_, rows| drop(rows.pop())), Err(MaskError::AnswerRejected), "row missing");
    assert_eq!(fixture.attack(|_, rows| rows.push(rows[0].clone())), Err(MaskError::AnswerRejected), "row too many");
}

#[test]
fn every_wanted_position_is_checked() {
    let fixture = Fixture::new(4096, &[33, 33], 1, &[false, false], 4);
    for (n, &k) in fixture.layer.wanted.indices().iter().enumerate() {
        let lie = |ring: &Ring, rows: &mut Vec<Poly<Coefficient>>| {
            let (l, m) = (n % 2, ring.moduli()[n % 2]);
            let v = &mut rows[n % 2].limb_mut(l)[k as usize];
            *v = m.add(*v, 1);
        };
        assert_eq!(fixture.attack(lie), Err(MaskError::AnswerRejected), "coefficient {k}");
    }
}

#[test]
fn replayed_missing_and_malformed_answers_take_the_same_path() {
    let fixture = Fixture::new(4096, &[33, 33], 2, &[false], 5);
    let x = fixture.input(1);
    let (first, pending) = fixture.mask(&x, 1);
    let answer = fixture.answer(&fixture.serve(&first));
    pending.finish(Some(answer.clone())).unwrap();
    // The same image again: the old answer belongs to the old secret.
    let (_, pending) = fixture.mask(&x, 2);
    assert_eq!(pending.finish(Some(answer)), Err(MaskError::AnswerRejected));
    let (_, pending) = fixture.mask(&x, 3);
    assert_eq!(pending.finish(None), Err(MaskError::AnswerRejected));
    let ring = fixture.ring();
    let count = ring.limbs() * fixture.layer.wanted.count();
    let mut residues = vec![0; count];
    let form = fixture.key.form();
    assert!(Answer::new(ring, form, residues.clone()).is_ok());
    assert_eq!(Answer::new(ring, form, residues[1..].to_vec()), Err(MaskError::AnswerRejected));
    let foreign = Arc::new(AnswerForm::new(fixture.layer.wanted.clone(), vec![count]));
    assert_eq!(Answer::new(ring, &foreign, vec![0; foreign.residues()]), Err(MaskError::AnswerRejected));
    *residues.last_mut().unwrap() = ring.moduli()[1].value();
    assert_eq!(Answer::new(ring, form, residues), Err(MaskError::AnswerRejected), "residue >= p");
}

#[test]
fn check_scalars_wear_out() {
    let fixture = Fixture::new(2048, &[45], 1, &[true], 6);
    for _ in 0..check::MAX_REJECTS {
        fixture.key.check.count_guess();
    }
    let refused = fixture.key.mask(&fixture.input(1), RequestEntropy::fixed([1; 32]), context(0));
    assert_eq!(refused.map(|_| ()).unwrap_err(), MaskError::CheckKeyExhausted(1 << 16));
}
