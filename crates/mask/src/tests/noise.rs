//! Measured noise against its bound.

use super::*;

#[test]
fn measured_noise_is_under_the_bound_and_near_it() {
    for (fixture, name) in [
        (Fixture::new(4096, &[34, 33], 11, &[false, false], 3), "hidden"),
        (Fixture::new(2048, &[46], 4, &[true, true], 3), "open"),
    ] {
        let report = fixture.key.noise();
        let x = fixture.input(3);
        let (masked, pending) = fixture.mask(&x, 3);
        let answer = fixture.answer(&fixture.serve(&masked));
        let (values, measured) = pending.finish_measuring_noise(Some(answer)).unwrap();
        assert_eq!(values, fixture.expected(&x));
        assert!(measured <= report.bound_bits && report.bound_bits <= measured + 6.0, "{name}: {measured} {report:?}");
        assert!(report.bound_bits <= report.available_bits && report.log2_failure <= crate::noise::MAX_FAILURE_LOG2);
    }
}

#[test]
fn a_modulus_too_small_shows_in_the_report() {
    let fixture = Fixture::new(4096, &[33, 33], 4, &[false], 3);
    let report = fixture.key.noise();
    assert!(report.bound_bits < report.available_bits && report.log2_failure < -64.0);
    let parameters = parameters(4096, &[33, 33], 27);
    let (_, key) = seal_rows(&parameters, &fixture.rows, 1, 3, &SealEntropy::fixed([3; 32]));
    assert!(key.noise().log2_failure > -64.0 && key.noise().bound_bits > key.noise().available_bits);
}
