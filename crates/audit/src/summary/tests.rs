use super::*;

pub(crate) fn result(policy: &str, leaked: f64, budget: usize, attacker: &str, seed: u64, right: &str) -> CellResult {
    let count = unpack(right).iter().filter(|r| **r).count() as f64 / (4 * right.len()) as f64;
    CellResult {
        id: format!("{policy}-{leaked}-{budget}-{attacker}-{seed}"),
        policy: policy.into(),
        leaked,
        opened: leaked,
        budget,
        attacker: attacker.into(),
        seed,
        accuracy: count,
        fidelity: count,
        right: right.into(),
        rate: None,
        curve: vec![],
        plateau: true,
        seconds: 1.0,
        engine: crate::run::burn(),
        failure: None,
    }
}

#[test]
fn the_best_attacker_stands_beside_the_best_twin() {
    let results = [
        result("nothing", 0.0, 0, "zero", 0, "0001"),
        result("nothing", 0.0, 0, "zero", 1, "0001"),
        result("nothing", 0.0, 50, "tune-all", 0, "0003"),
        result("nothing", 0.0, 50, "tune-all", 1, "0007"),
        result("random-rows", 0.5, 0, "zero", 0, "00ff"),
        result("random-rows", 0.5, 0, "zero", 1, "00ff"),
        result("random-rows", 0.5, 50, "tune-all", 0, "0fff"),
        result("random-rows", 0.5, 50, "tune-all", 1, "0fff"),
        result("everything", 1.0, 0, "zero", 0, "ffff"),
    ];
    let rows = summarise(&results, &[0, 50], &[Attacker::Zero, Attacker::TuneAll], 16).unwrap();
    let row = |policy: &str, budget: usize| rows.iter().find(|r| r.policy == policy && r.budget == budget).unwrap();
    assert_eq!(rows.len(), 6);
    let hidden = row("nothing", 50);
    assert_eq!((hidden.advantage, hidden.interval), (0.0, Some([0.0, 0.0])), "a twin has no advantage over itself");
    let half = row("random-rows", 50);
    assert_eq!((half.best_attacker.as_str(), half.black_box_attacker.as_str()), ("tune-all", "tune-all"));
    assert!((half.advantage - (12.0 - 2.5) / 16.0).abs() < 1e-12);
    let [low, high] = half.interval.unwrap();
    assert!(low < half.advantage && half.advantage < high);
    // Without images the twin of the zero filler is the zero filler.
    assert!((row("random-rows", 0).advantage - 7.0 / 16.0).abs() < 1e-12);
    assert_eq!((row("everything", 50).accuracy, row("everything", 50).seeds), (1.0, 2));
}

#[test]
fn a_half_finished_run_compares_like_with_like() {
    let expected = [Attacker::Zero, Attacker::TuneAll];
    let mut results = vec![
        result("nothing", 0.0, 0, "zero", 0, "1"),
        result("random-rows", 0.5, 0, "zero", 0, "f"),
        result("everything", 1.0, 0, "zero", 0, "f"),
    ];
    let budgets = |results: &[CellResult]| {
        summarise(results, &[0, 50], &expected, 4).unwrap().iter().filter(|r| r.budget == 50).count()
    };
    assert_eq!(budgets(&results), 0, "without the twin that has images nothing is said about images");
    results.push(result("nothing", 0.0, 50, "tune-all", 0, "7"));
    assert_eq!(budgets(&results), 2, "both ends");
    results.push(result("random-rows", 0.5, 50, "tune-all", 0, "7"));
    assert_eq!(budgets(&results), 3);
}

#[test]
fn who_knows_more_may_ignore_it() {
    let row = |own: [&str; 2]| {
        let mut results = vec![];
        for (seed, own) in (0..).zip(own) {
            results.push(result("nothing", 0.0, 0, "zero", seed, "ff000000"));
            results.push(result("random-rows", 0.5, 0, "zero", seed, own));
        }
        let rows = summarise(&results, &[0], &[Attacker::Zero], 32).unwrap();
        rows.into_iter().find(|r| r.policy == "random-rows").unwrap()
    };
    // A gain in one seed and a loss in the other are none, and the interval has both.
    let even = row(["f0000000", "fff00000"]);
    assert_eq!((even.advantage, even.opened, even.seeds), (0.0, 0.5, 2));
    assert_eq!(even.interval, Some([-1.0, 1.0]), "two seeds leave everything open, and nothing beyond 100 points");
    // A loss in both is no advantage, and says nothing of gains beyond 0.
    let worse = row(["0f000000", "0f000000"]);
    assert_eq!((worse.advantage, worse.accuracy, worse.interval.unwrap()[1]), (0.0, 0.25, 0.0));
    assert!(worse.interval.unwrap()[0] < -0.125);
    assert_eq!(worse.best_attacker, "zero, ignoring what is open");
}

#[test]
fn one_seed_has_no_interval() {
    let results = [result("nothing", 0.0, 0, "zero", 0, "1"), result("random-rows", 0.5, 0, "zero", 0, "3")];
    let rows = summarise(&results, &[0], &[Attacker::Zero], 4).unwrap();
    assert!(rows.iter().all(|r| r.interval.is_none() && r.seeds == 1));
}

#[test]
fn intervals_agree_with_a_worked_example() {
    // Differences 0.1 and 0.2 on 40 images: mean 0.15, t(1) = 12.706, s = 0.0707; images: 1 four
    // times, 0.5 four times.
    let [a0, a1, t] = ["f000000000", "ff00000000", "0000000000"].map(|right| result("p", 0.5, 0, "zero", 0, right));
    let [low, high] = interval(&[(&a0, &t), (&a1, &t)], false, 40).unwrap();
    let half = (12.706f64 * 0.070_710_7 / 2f64.sqrt()).hypot(1.96 * 0.324_235_0 / 40f64.sqrt());
    assert!((high - low - 2.0 * half).abs() < 1e-5 && ((high + low) / 2.0 - 0.15).abs() < 1e-12);
}

/// An image that speaks for a gain never makes one less likely than no image at all.
#[test]
fn one_image_that_differs_widens_an_interval() {
    let zeros = "0".repeat(500);
    let one = format!("8{}", &zeros[1..]);
    let twin = result("n", 0.0, 0, "zero", 0, &zeros);
    let upper = |rights: [&str; 2]| {
        let seeds = rights.map(|right| result("p", 0.5, 0, "zero", 0, right));
        interval(&[(&seeds[0], &twin), (&seeds[1], &twin)], false, 2000).unwrap()[1]
    };
    let (none, both) = (upper([&zeros, &zeros]), upper([&one, &one]));
    assert!(none == 3.0 / 2000.0 && both > none, "{none} {both}");
}
