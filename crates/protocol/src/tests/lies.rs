//! Every layer rejects every lie.

use super::*;

#[test]
fn every_layer_rejects_every_lie() {
    let model = quantised(3, (8, 8));
    let sealed = sealed(&model, 0.4, 3);
    let server = server(&sealed);
    let x = image(5);
    let honest = run(&sealed.client, &server, x.clone(), &mut |_, _| {}).unwrap();
    // Answers of an earlier run of the same image, to be replayed.
    let mut old = vec![];
    run(&sealed.client, &server, x.clone(), &mut |_, answer| old.push(answer.clone())).unwrap();
    let stale = self::sealed(&model, 0.4, 99);
    let stale_server = self::server(&stale);
    for layer in 0..4 {
        let reject = |lie: &dyn Fn(&mut Vec<u8>)| {
            let mut tamper = |at: usize, answer: &mut Vec<u8>| {
                if at == layer {
                    lie(answer);
                }
            };
            match run(&sealed.client, &server, x.clone(), &mut tamper) {
                Err(ProtocolError::Rejected { layer: name, .. }) => assert_eq!(name, ["a", "b", "c", "d"][layer]),
                other => panic!("layer {layer}: {other:?}"),
            }
        };
        reject(&|a| a[7] ^= 1);
        reject(&|a| *a.last_mut().unwrap() ^= 1);
        // Residues that are not below their primes.
        reject(&|a| {
            let end = a.len();
            a[end - 16..].fill(0xff);
        });
        reject(&|a| *a = old[layer].clone());
        reject(&|a| *a = old[(layer + 1) % 4].clone());
        reject(&|a| a.truncate(a.len() - 1));
        reject(&|a| a.push(0));
        reject(&|a| a.clear());
        reject(&|a| a[2] = 9);
        reject(&|a| *a = crate::message::encode_refusal(Refusal::Malformed));
    }
    // A model sealed anew is another model: its server refuses, and says so.
    let error = run(&sealed.client, &stale_server, x.clone(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(&error, ProtocolError::Rejected { refusal: Some(Refusal::UnknownModel), .. }));
    assert!(error.to_string().contains("another model"), "{error}");
    // And nothing of this has spoiled the client.
    let again = run(&sealed.client, &server, x, &mut |_, _| {}).unwrap();
    assert_eq!(honest, again);
}
