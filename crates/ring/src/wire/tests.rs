use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn residues_survive(bits in 20u32..=50, raw in prop::collection::vec(any::<u64>(), 0..200), top: bool) {
        let p = Modulus::new(crate::primes::ntt_primes(1024, bits, 1).unwrap()[0]).unwrap();
        let values: Vec<u64> = raw.iter().map(|&v| if top { p.value() - 1 } else { v % p.value() }).collect();
        let packed = Backend::available().into_iter().map(|backend| {
            let mut w = Writer::new();
            w.residues(backend, &p, &values);
            w.finish()
        });
        let packed: Vec<Vec<u8>> = packed.collect();
        let bytes = packed[0].clone();
        prop_assert!(packed.iter().all(|other| *other == bytes));
        prop_assert_eq!(bytes.len(), packed_len(&p, values.len()));
        // The form is the same whatever way packed it: bit i*width + j is bit j of value i.
        for (i, v) in values.iter().enumerate() {
            for j in 0..bits as usize {
                let at = i * bits as usize + j;
                prop_assert_eq!(u64::from(bytes[at / 8] >> (at % 8) & 1), v >> j & 1);
            }
        }
        for backend in Backend::available() {
            let mut back = vec![0; values.len()];
            let mut r = Reader::new(&bytes);
            r.residues(backend, &p, &mut back).unwrap();
            r.finish().unwrap();
            prop_assert_eq!(&back, &values);
        }
    }

    #[test]
    fn numbers_survive(v in any::<u64>(), shift in 0u32..64) {
        let mut w = Writer::new();
        w.varint(v >> shift);
        let bytes = w.finish();
        prop_assert_eq!(Reader::new(&bytes).varint().unwrap(), v >> shift);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let p = Modulus::new(12289).unwrap();
        let mut r = Reader::new(&bytes);
        let _ = r.varint();
        let _ = r.residues(Backend::fastest(), &p, &mut [0; 9]);
        let _ = r.count(3, "things");
    }
}

#[test]
fn a_residue_not_below_its_prime_is_refused_wherever_it_stands() {
    let p = Modulus::new(12289).unwrap();
    let places = (0..67).flat_map(|at| [(at, 12288u64, true), (at, 12289, false), (at, 16383, false)]);
    for (backend, (at, v, ok)) in Backend::available().into_iter().flat_map(|k| places.clone().map(move |p| (k, p))) {
        let mut values = vec![5; 67];
        values[at] = v;
        let mut w = Writer::new();
        w.residues(backend, &p, &values);
        let read = Reader::new(&w.finish()).residues(backend, &p, &mut [0; 67]);
        assert_eq!(read.is_ok(), ok, "{}, {v} at {at}", backend.name());
    }
}

#[test]
fn padding_must_be_zero() {
    let p = Modulus::new(12289).unwrap();
    let backend = Backend::fastest();
    assert!(Reader::new(&[1, 0]).residues(backend, &p, &mut [0; 1]).is_ok());
    assert!(Reader::new(&[1, 0x40]).residues(backend, &p, &mut [0; 1]).is_err());
}
