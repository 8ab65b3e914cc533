use jali_bundle::{Bundle, BundleError, BundleWriter, Kind};
use jali_mask::{
    Answer, MatrixShape, OperatorId, OperatorKey, Parameters, ParametersLiteral, PlainRow, RequestContext,
    RequestEntropy, SealEntropy, SealedOperator, Tile, seal,
};
use jali_ring::wire::Writer;
use jali_ring::{Backend, Steps, WantedPattern};
use jali_testing::add_negacyclic_product;
use proptest::prelude::*;

use crate::*;

const NO_LIMIT: usize = usize::MAX;

fn sample(degree: usize, prime_bits: Vec<u32>, rows: &[(Vec<Tile>, bool)]) -> (SealedOperator, OperatorKey) {
    let open_primes = prime_bits.len();
    sample_with(ParametersLiteral { degree, prime_bits, plaintext_bits: 20, open_primes }, rows, 1)
}

fn sample_with(literal: ParametersLiteral, rows: &[(Vec<Tile>, bool)], blocks: usize) -> (SealedOperator, OperatorKey) {
    let degree = literal.degree;
    let parameters: Parameters = literal.try_into().unwrap();
    let entropy = SealEntropy::fixed([1; 32]);
    let plain: Vec<PlainRow<'_>> = rows.iter().map(|(tiles, open)| PlainRow { tiles, open: *open }).collect();
    let one = Steps { count: 1, stride: 1 };
    let steps = [one, Steps { count: 4, stride: 9 }, Steps { count: 2, stride: 1 }];
    let wanted = WantedPattern { start: 3, steps }.expand(degree).unwrap();
    let id = OperatorId { model: entropy.model_id(), operator: 0 };
    seal(&parameters, id, &plain, blocks, &wanted, 255, &entropy).unwrap()
}

fn rows() -> Vec<(Vec<Tile>, bool)> {
    vec![
        (vec![vec![(0, 127), (5, -127), (2047, 1)], vec![(3, -1)]], true),
        (vec![vec![(1, 99), (2, -64)], vec![]], false),
    ]
}

fn load(bytes: &[u8], max_memory: usize) -> Result<ServerModel, OperatorError> {
    ServerModel::load(bytes, Backend::fastest(), max_memory)
}

/// Open rows modulo the first prime alone.
fn mixed() -> (Vec<u8>, OperatorKey) {
    let literal = ParametersLiteral { degree: 4096, prime_bits: vec![43, 33], plaintext_bits: 20, open_primes: 1 };
    let (layer, key) = sample_with(literal, &rows(), 1);
    (encode_model(layer.id.model, &[layer]).unwrap(), key)
}

/// Each row in a block of its own.
fn blocks() -> (Vec<u8>, OperatorKey) {
    let literal = ParametersLiteral { degree: 4096, prime_bits: vec![43, 33], plaintext_bits: 20, open_primes: 1 };
    let (layer, key) = sample_with(literal, &rows(), 2);
    (encode_model(layer.id.model, &[layer]).unwrap(), key)
}

fn sealed() -> (Vec<u8>, OperatorKey) {
    let (layer, key) = sample(4096, vec![33, 33], &rows());
    (encode_model(layer.id.model, &[layer]).unwrap(), key)
}

#[test]
fn a_loaded_operator_answers_exactly_with_every_backend() {
    answers_exactly(sealed(), 1, 4);
    answers_exactly(mixed(), 1, 3);
    answers_exactly(blocks(), 2, 3);
}

/// `limbs`: primes of all rows together.
fn answers_exactly((bytes, key): (Vec<u8>, OperatorKey), blocks: usize, limbs: usize) {
    let x: Vec<Vec<i64>> =
        (0..2 * blocks as i64).map(|i| (0..4096).map(|j| (i * 31 + j * 7) % 511 - 255).collect()).collect();
    let want: Vec<i64> = rows()
        .iter()
        .enumerate()
        .flat_map(|(row, (tiles, _))| {
            let mut y = vec![0i64; 4096];
            for (tile, x) in tiles.iter().zip(&x[row * blocks / 2 * 2..]) {
                add_negacyclic_product(&mut y, tile, x);
            }
            key.form().wanted().indices().iter().map(move |&k| y[k as usize]).collect::<Vec<_>>()
        })
        .collect();
    for backend in Backend::available() {
        let context = RequestContext { counter: 0, image: 0 };
        let (masked, pending) = key.mask(&x, RequestEntropy::fixed([2; 32]), context).unwrap();
        let model = ServerModel::load(&bytes, backend, NO_LIMIT).unwrap();
        let operator = &model.operators()[0];
        assert_eq!((operator.rows(), operator.tiles(), operator.hidden_rows()), (2, 2 * blocks, 1));
        let answer = operator.apply(&[&masked]).unwrap().remove(0);
        assert_eq!(answer.residues().len(), limbs * key.form().wanted().count());
        assert_eq!(pending.finish(Some(answer.clone())).unwrap(), want, "{}", backend.name());
        // The same from bytes, in a batch that is more than one group; what is not an input of it
        // is refused.
        let turned: Vec<_> = masked.iter().rev().cloned().collect();
        let other = operator.apply(&[&turned]).unwrap().remove(0);
        assert!(other != answer);
        let mut w = Writer::new();
        (0..19).for_each(|i| w.polys(operator.ring(), if i % 3 == 0 { &turned } else { &masked }));
        let request = w.finish();
        let mut answers = vec![0; 19 * operator.rows_len()];
        operator.answer(&request, 19, &mut answers).unwrap();
        for (i, bytes) in answers.chunks_exact(operator.rows_len()).enumerate() {
            let got = Answer::decode(operator.ring(), key.form(), bytes).unwrap();
            assert!(got == if i % 3 == 0 { other.clone() } else { answer.clone() }, "{}, image {i}", backend.name());
        }
        let (mut beyond, len) = (request.clone(), operator.rows_len());
        beyond[request.len() / 2..][..16].fill(0xff);
        for (bytes, images) in [(&request[..], 18), (&request[1..], 19), (&beyond, 19), (&request[..0], 0)] {
            assert!(operator.answer(bytes, images, &mut answers[..images * len]).is_err(), "{images} images");
        }
        assert!(operator.answer(&request, 19, &mut answers[1..]).is_err());
        assert!(operator.apply(&[&masked[..1]]).is_err());
        assert!(operator.apply(&masked[..0].chunks(1).collect::<Vec<_>>()).is_err());
    }
}

#[test]
fn open_weights_stand_in_the_bytes_and_hidden_ones_do_not() {
    // 400 distinctive weights in one row: found when open, not when hidden.
    let tile: Tile = (0..400).map(|i| (i * 3, (i as i32 * 37 % 201) - 100)).collect();
    let terms: Vec<u8> = tile
        .iter()
        .flat_map(|&(_, v)| {
            let zigzag = ((v << 1) ^ (v >> 31)) as u32;
            let low = if zigzag < 128 { vec![zigzag as u8] } else { vec![zigzag as u8 | 0x80, (zigzag >> 7) as u8] };
            [vec![2u8], low].concat()
        })
        .collect();
    // The first term has index step 0, the others 2.
    let pattern = &terms[terms.len() / 2..];
    let find = |open: bool| {
        let (layer, _) = sample(4096, vec![33, 33], &[(vec![tile.clone()], open)]);
        let bytes = encode_model(layer.id.model, &[layer]).unwrap();
        (bytes.windows(pattern.len()).any(|w| w == pattern), bytes.len())
    };
    let ((open_found, open_len), (hidden_found, hidden_len)) = (find(true), find(false));
    assert!(open_found, "leaked weights must be stored in the clear");
    assert!(!hidden_found, "hidden weights must not be found in the server's bytes");
    assert!(open_len < 2000 && hidden_len > 4096 * 65 / 8, "{open_len} {hidden_len}");
}

#[test]
fn damaged_models_are_refused_with_a_reason() {
    let (bytes, _) = sealed();
    for len in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        assert!(load(&bytes[..len], NO_LIMIT).is_err(), "cut to {len}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(load(&longer, NO_LIMIT).is_err());
    let text = |bytes: &[u8]| load(bytes, NO_LIMIT).unwrap_err().to_string();
    assert!(text(b"PK\x03\x04 something else entirely").contains("not a Jali bundle"));
    let mut version = bytes.clone();
    version[8] = 9;
    assert!(text(&version).contains("version 9"));
    let mut row = bytes.clone();
    row[60_000] ^= 4;
    assert!(text(&row).contains("section \"rows 0 0\""), "{}", text(&row));
    assert!(text(&bytes[..bytes.len() - 1]).contains("cut off"));
    assert!(matches!(load(&bytes, 1000), Err(OperatorError::Memory { limit: 1000, .. })));
    let client = BundleWriter::new(vec![], Kind::Client, [0; 16]).unwrap().finish().unwrap().0;
    assert_eq!(
        load(&client, NO_LIMIT).unwrap_err(),
        OperatorError::Bundle(BundleError::Kind { expected: Kind::Server, got: Kind::Client })
    );
}

/// A bundle of given sections, with right checksums.
fn forged(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = BundleWriter::new(vec![], Kind::Server, [7; 16]).unwrap();
    sections.iter().for_each(|(name, bytes)| out.section(name, bytes).unwrap());
    out.finish().unwrap().0
}

#[test]
fn forged_bundles_cannot_ask_for_memory_or_leave_anything_out() {
    let operator = |degree: u32, rows: u32, tiles: u32, kinds: usize| {
        let mut w = jali_ring::wire::Writer::new();
        w.u32(1);
        w.u32(degree);
        [1, 40, 1].iter().for_each(|&b| w.u8(b));
        w.u32(tiles);
        w.u32(1);
        w.u32(rows);
        [0, 1, 1, 1, 1, 1, 1].iter().for_each(|&v| w.u32(v));
        w.raw(&[0; 32]);
        w.raw(&vec![0; kinds]);
        w.finish()
    };
    // A few bytes that claim the largest matrix, with and without the rows' kinds.
    let huge = operator(32768, 1 << 20, 4096, 1 << 20);
    assert!(load(&forged(&[("operators", &huge)]), NO_LIMIT).is_err());
    assert!(load(&forged(&[("operators", &operator(32768, 1 << 20, 4096, 3))]), NO_LIMIT).is_err());
    // Many operators: their rings alone would take the memory.
    let mut many = jali_ring::wire::Writer::new();
    many.u32(4096);
    (0..4096).for_each(|_| many.raw(&operator(32768, 1, 1, 1)[4..]));
    assert!(load(&forged(&[("operators", &many.finish())]), 1 << 24).is_err());
    let small = operator(1024, 1, 1, 1);
    let row = vec![0; 1024 * 40 / 8];
    let whole = [("operators", &small[..]), ("rows 0 0", &row)];
    assert!(load(&forged(&whole), NO_LIMIT).is_ok());
    for wrong in [
        &[whole[1], whole[0]][..],
        &whole[..1],
        &[whole[0], whole[1], whole[1]],
        &[whole[0], ("rows 1 0", &row)],
        &[whole[0], ("rows 0 0", &row[1..])],
        &[whole[0], ("rows 0 0", &[&row[..], &[0]].concat())],
        &[("operators", &[]), whole[1]],
    ] {
        assert!(load(&forged(wrong), NO_LIMIT).is_err());
    }
}

proptest! {
    #[test]
    fn any_flipped_bit_is_refused(at: prop::sample::Index, bit in 0u8..8) {
        thread_local!(static BYTES: Vec<u8> = mixed().0);
        let result = BYTES.with(|bytes| {
            let mut bytes = bytes.clone();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            load(&bytes, NO_LIMIT)
        });
        prop_assert!(result.is_err());
    }

    #[test]
    fn arbitrary_changes_never_panic(at in 0usize..200, value: u8, noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let (layer, _) = sample(2048, vec![45], &[(vec![vec![(0, 127), (5, -127)], vec![(3, -1)]], true)]);
        let mut bytes = encode_model(layer.id.model, &[layer]).unwrap();
        let _ = load(&noise, 1 << 24);
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = load(&bytes, 1 << 24);
        bytes.truncate(at);
        bytes.extend(noise);
        let _ = load(&bytes, 1 << 24);
    }
}

#[test]
fn large_operators_are_cut_into_sections_and_hints_are_those_of_sealing() {
    let rows: Vec<_> = (0..180).map(|i| (vec![vec![(i, 1)]], i % 5 == 0)).collect();
    let (layer, key) = sample(4096, vec![33, 33], &rows);
    let bytes = encode_model(layer.id.model, &[layer]).unwrap();
    let mut bundle = Bundle::open(std::io::Cursor::new(&bytes), Kind::Server).unwrap();
    assert_eq!(bundle.sections().len(), 6);
    let summary = OperatorSummary::read_all(&mut bundle).unwrap().remove(0);
    assert_eq!((summary.hidden_rows, summary.open_rows), (144, 36));
    assert!(summary.open_bytes > 36 && summary.open_bytes < 36 * 6, "{summary:?}");
    bundle.verify(|_| {}).unwrap();
    let model = load(&bytes, NO_LIMIT).unwrap();
    let operator = &model.operators()[0];
    let mut written = vec![0; operator.hints_len()];
    operator.hints(&mut written).unwrap();
    assert!(operator.hints(&mut written[1..]).is_err());
    let mut w = jali_ring::wire::Writer::new();
    key.encode(&mut w);
    let stored = w.finish();
    let mut r = jali_ring::wire::Reader::new(&stored);
    let id = OperatorId { model: [0; 16], operator: 0 };
    let (form, shape) = (key.form().wanted().clone(), MatrixShape { rows: 180, blocks: 1, tiles: 1 });
    let unhinted = jali_mask::UnhintedKey::decode(&mut r, id, key.parameters().clone(), form, 255, shape).unwrap();
    assert!(unhinted.accept(&written).is_ok());
}
