//! Pointwise products against wide integers.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pointwise_products_agree_with_wide_integers(bits in 20u32..=50, seed: u8, scalar: u64, top in any::<bool>()) {
        let m = Modulus::new(ntt_primes(1024, bits, 1).unwrap()[0]).unwrap();
        let p = u128::from(m.value());
        let mut v = vec![m.value() - 1; 5 * 64];
        if !top {
            crate::sample::uniform_mod(&mut stream(&derive_key("jali pointwise test", &[&[seed]])), &m, &mut v);
        }
        let part = |i: usize| &v[64 * i..64 * (i + 1)];
        let wide = |i: usize, k: usize| u128::from(part(i)[k]);
        let scalar = scalar % m.value();
        for backend in backends().into_iter().filter(|k| k.for_modulus(&m) == *k) {
            for subtract in [false, true] {
                let mut acc = part(0).to_vec();
                backend.run(MulAdd { modulus: &m, acc: &mut acc, a: part(1), b: part(2), subtract });
                for k in 0..64 {
                    let product = wide(1, k) * wide(2, k) % p;
                    let want = (wide(0, k) + if subtract { p - product } else { product }) % p;
                    prop_assert_eq!(u128::from(acc[k]), want);
                }
            }
            let mut out = vec![0; 64];
            backend.run(SumOfProducts { modulus: &m, out: &mut out, factors: [[part(1), part(2)], [part(3), part(4)]] });
            for k in 0..64 {
                prop_assert_eq!(u128::from(out[k]), (wide(1, k) * wide(2, k) + wide(3, k) * wide(4, k)) % p);
            }
            let mut acc = part(0).to_vec();
            backend.run(AddScaled { modulus: &m, acc: &mut acc, a: part(1), scalar });
            for k in 0..64 {
                prop_assert_eq!(u128::from(acc[k]), (wide(0, k) + u128::from(scalar) * wide(1, k)) % p);
            }
        }
    }
}
