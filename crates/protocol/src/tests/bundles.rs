//! The client's bundle.

use super::*;

/// An operator as the section "operators" has it.
#[derive(Clone)]
struct Entry {
    node: u32,
    rest: Vec<u8>,
}

fn entries(section: &[u8], limbs: &[usize]) -> Vec<Entry> {
    let number = |at: usize| u32::from_le_bytes(section[at..at + 4].try_into().unwrap());
    let (mut at, mut out) = (4, vec![]);
    for &limbs in limbs {
        let len = 16 + 4 + 1 + limbs + 2;
        out.push(Entry { node: number(at), rest: section[at + 4..at + 4 + len].to_vec() });
        at += 4 + len;
    }
    assert_eq!((at, out.len()), (section.len(), number(0) as usize));
    out
}

fn section(entries: &[Entry]) -> Vec<u8> {
    let entry = |e: &Entry| [&e.node.to_le_bytes()[..], &e.rest].concat();
    [(entries.len() as u32).to_le_bytes().to_vec(), entries.iter().flat_map(entry).collect()].concat()
}

/// Bundles whose section "operators" was changed, with everything else made to fit.
#[test]
fn bundles_whose_operators_are_not_the_networks_are_refused() {
    let sealed = sealed(&quantised(3, (8, 8)), 0.4, 1);
    let bytes = sealed.client.write(vec![]).unwrap().0;
    let limbs: Vec<usize> = sealed.report.iter().map(|o| o.primes_bits.len()).collect();
    let forged = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut bundle = Bundle::open(std::io::Cursor::new(&bytes), Kind::Client).unwrap();
        let mut out = BundleWriter::new(vec![], Kind::Client, bundle.model()).unwrap();
        while let Some(named) = bundle.peek().cloned() {
            let mut content = bundle.next(u64::MAX).unwrap();
            if named.name == "operators" {
                let mut all = entries(&content, &limbs);
                change(&mut all);
                content = section(&all);
            }
            out.section(&named.name, &content).unwrap();
        }
        StoredClient::read(std::io::Cursor::new(out.finish().unwrap().0)).map(|_| ())
    };
    forged(&|_| {}).unwrap();
    let refused = |change: &dyn Fn(&mut Vec<Entry>), why: &str| {
        let error = forged(change).unwrap_err().to_string();
        assert!(error.contains(why), "{error}, not {why}");
    };
    refused(&|all| all.truncate(3), "an operator for every linear layer");
    refused(&|all| all.push(all[3].clone()), "an operator for every linear layer");
    refused(&|all| all.swap(0, 1), "in the order of the network");
    refused(&|all| all[1].node += 1, "in the order of the network");
    refused(&|all| *all[1].rest.last_mut().unwrap() = 3, "room for every sum");
    refused(&|all| all[1].rest[..4].fill(0xff), "coefficients");
    // A ring of very many primes is not built for a key that cannot be one of it.
    refused(
        &|all| {
            let rest = &mut all[0].rest;
            let (choice, plaintext) = (rest[..16].to_vec(), rest[rest.len() - 1]);
            *rest = [&choice[..], &32768u32.to_le_bytes(), &[26], &[33; 26], &[26, plaintext]].concat();
        },
        "too short for the layer",
    );
}

#[test]
fn a_client_from_a_bundle_computes_the_same() {
    let model = quantised(3, (8, 8));
    for leak in [0.0, 0.6, 1.0] {
        let sealed = sealed(&model, leak, 2);
        let server = server(&sealed);
        let (bytes, hash) = sealed.client.write(vec![]).unwrap();
        let stored = StoredClient::read(std::io::Cursor::new(&bytes)).unwrap();
        assert_eq!((stored.content_hash(), stored.id()), (hash, sealed.client.id()));
        let summaries = stored.summaries();
        assert!(
            summaries.iter().zip(&sealed.report).all(|(s, r)| s.weights_hidden == r.weights_hidden && s.rows == r.rows)
        );
        let missing = stored.operators();
        assert_eq!(stored.finish().map(|_| ()), Err(ProtocolError::HintsMissing { missing }));
        let client = restored(&bytes, &server).unwrap();
        assert_exact(&client, &server, &model, image(5));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_flipped_bit_of_a_clients_bundle_is_refused(at: prop::sample::Index, bit in 0u8..8, cut: bool) {
        thread_local!(static BYTES: Vec<u8> = sealed(&quantised(1, (4, 4)), 0.5, 1).client.write(vec![]).unwrap().0);
        let result = BYTES.with(|bytes| {
            let mut bytes = bytes.clone();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            StoredClient::read(std::io::Cursor::new(bytes))
        });
        prop_assert!(result.is_err());
    }
}
