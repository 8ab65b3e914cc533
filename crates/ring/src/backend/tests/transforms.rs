//! Transforms against another implementation.

use super::*;

#[test]
fn all_transforms_agree_with_another_implementation() {
    for (degree, bits) in [
        (1024, 22),
        (1024, 26),
        (1024, 50),
        (2048, 33),
        (2048, 44),
        (2048, 47),
        (2048, 48),
        (4096, 33),
        (4096, 36),
        (4096, 47),
        (4096, 49),
        (8192, 35),
        (16384, 47),
        (32768, 47),
        (32768, 34),
        (32768, 50),
    ] {
        let m = Modulus::new(ntt_primes(degree, bits, 1).unwrap()[0]).unwrap();
        let other = Plan::try_new(degree, m.value()).unwrap();
        let reduce = |v: &mut Vec<u64>| v.iter_mut().for_each(|v| *v %= m.value());
        // The other implementation's root: the value that the transform of X has first.
        let mut roots = vec![0; degree];
        roots[1] = 1;
        other.fwd(&mut roots);
        reduce(&mut roots);
        let psi = roots[0];
        let mut random = vec![0; degree];
        crate::sample::uniform_mod(&mut stream(&derive_key("jali ntt test", &[&[bits as u8]])), &m, &mut random);
        for input in [
            random,
            vec![m.value() - 1; degree],
            (0..degree).map(|i| if i % 3 == 0 { m.value() - 1 } else { 0 }).collect(),
        ] {
            let mut want = input.clone();
            other.fwd(&mut want);
            reduce(&mut want);
            for backend in backends().into_iter().filter(|k| k.for_modulus(&m) == *k) {
                let tables = backend.run(MakeTables { modulus: m, log_degree: degree.ilog2(), psi });
                let mut got = input.clone();
                backend.run(Forward { tables: &tables, values: &mut got });
                let name = backend.name();
                assert!((0..degree).all(|i| got[place(i)] == want[i]), "{name} forward, degree {degree}, {bits} bits");
                backend.run(Inverse { tables: &tables, values: &mut got, begun: false, wanted: None, ahead: &[] });
                assert!(got == input, "{name} inverse, degree {degree}, {bits} bits");
            }
        }
    }
}

#[test]
fn wanted_runs_take_any_degree() {
    for degree in [0, 1, 63, 64, 100, 1 << 20, usize::MAX] {
        let _ = WantedRuns::new(degree, &[0, 5, 99, u32::MAX]);
    }
}

/// The six innermost levels of an inverse, block by block, where lanes take these; whether they do.
struct Begin<'a> {
    tables: &'a Tables,
    values: &'a mut [u64],
}

impl Job for Begin<'_> {
    type Out = bool;

    #[inline(always)]
    fn run<V: Lanes>(self) -> bool {
        let (p, degree) = (V::prime(self.tables.modulus()), self.values.len());
        for block in 0..if holds_rows::<V>() { degree / 64 } else { 0 } {
            let words = V::split_mut(&mut self.values[64 * block..][..64]);
            let x = load_runs::<V, 8>(words, 0, 1, true);
            store_runs(words, 0, 1, &self.tables.begin_inverse::<V>(x, block, &p));
            self.tables.go_on::<V>((&mut *self.values, degree), block, &p);
        }
        holds_rows::<V>()
    }
}

/// Pruned transforms give the same where they must: the degrees are those whose last pass has 1, 2
/// and 3 levels left.
#[test]
fn pruned_transforms_give_the_wanted_coefficients() {
    for (degree, bits) in [(1024, 26), (2048, 47), (4096, 34), (8192, 35), (32768, 47), (4096, 49)] {
        let m = Modulus::new(ntt_primes(degree, bits, 1).unwrap()[0]).unwrap();
        let psi = (2..).map(|g| m.pow_vartime(g, (m.value() - 1) / (2 * degree as u64)));
        let psi = psi.into_iter().find(|&psi| m.pow_vartime(psi, degree as u64) == m.value() - 1).unwrap();
        let n = degree as u32;
        // One alone, a column of each mask of outputs, a run, neighbours of a stride, all, none,
        // and what lies outside.
        let columns = (0..256u32.min(n / 64)).flat_map(|mask| {
            (0..8).filter(move |a| (mask * 37 + 1) >> a & 1 == 1).map(move |a| a * (n / 8) + mask * 8 + mask % 8)
        });
        let sets: [Vec<u32>; 8] = [
            vec![0],
            vec![n - 1],
            columns.collect(),
            (n / 2 + 13..n / 2 + 13 + n / 4).collect(),
            (0..16).map(|i| i * (n / 16) + 5).collect(),
            (0..n).collect(),
            vec![],
            vec![n, u32::MAX, 7],
        ];
        for top in [false, true] {
            let mut values = vec![m.value() - 1; degree];
            if !top {
                crate::sample::uniform_mod(&mut stream(&derive_key("jali wanted runs test", &[])), &m, &mut values);
            }
            for backend in backends() {
                let backend = backend.for_modulus(&m);
                let tables = backend.run(MakeTables { modulus: m, log_degree: degree.ilog2(), psi });
                let mut want = values.clone();
                backend.run(Inverse { tables: &tables, values: &mut want, begun: false, wanted: None, ahead: &[] });
                for set in &sets {
                    let (wanted, mut got) = (WantedRuns::new(degree, set), values.clone());
                    backend.run(Inverse {
                        tables: &tables,
                        values: &mut got,
                        begun: false,
                        wanted: Some(&wanted),
                        ahead: &[7; 999],
                    });
                    // The same, begun as rows begin it.
                    let mut other = values.clone();
                    let begun = backend.run(Begin { tables: &tables, values: &mut other });
                    let (values, wanted) = (&mut other, Some(&wanted));
                    backend.run(Inverse { tables: &tables, values, begun, wanted, ahead: &[] });
                    for i in set.iter().map(|&i| i as usize).filter(|&i| i < degree) {
                        assert!(
                            got[i] == want[i] && other[i] == want[i],
                            "{}, degree {degree}, {bits} bits",
                            backend.name()
                        );
                    }
                }
            }
        }
    }
}
