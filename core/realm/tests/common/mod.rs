//! Helpers that the tests of this crate share.

#![allow(dead_code, reason = "no test wants all of it")]

use realm::Request;

/// A greedy story of exactly `tokens` tokens.
pub(crate) fn story(tokens: usize) -> Request {
    let mut request = Request::text("Once upon a time").temperature(0.0).max_tokens(tokens);
    request.ignore_eos = true;
    request
}

/// The weights of an adapter of rank 1, as PEFT saves them, for the output of a model's first feed-forward
/// network.
pub(crate) fn adapter(inputs: usize, hidden: usize) -> Vec<u8> {
    let module = "base_model.model.model.layers.0.mlp.down_proj";
    let (a, b) = (4 * inputs, 4 * hidden);
    let header = format!(
        r#"{{"{module}.lora_A.weight":{{"dtype":"F32","shape":[1,{inputs}],"data_offsets":[0,{a}]}},"#
    ) + &format!(
        r#""{module}.lora_B.weight":{{"dtype":"F32","shape":[{hidden},1],"data_offsets":[{a},{}]}}}}"#,
        a + b
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    for i in 0..inputs + hidden {
        file.extend(((i * 37 % 101) as f32 / 25.0 - 2.0).to_le_bytes());
    }
    file
}
