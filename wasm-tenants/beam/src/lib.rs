//! Beam search: keeps the likeliest beginnings of an answer and continues all of them at once, instead of
//! choosing one token at a time. Sends the whole answer with the highest `logprob / tokens ^ length_penalty`.
//! Beams share the pages of their common beginning. The request's sampling is ignored, because beam search
//! does not sample.
//!
//! Input: `{"width": 4, "length_penalty": 1.0}`.

use realm_tenant::*;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    width: usize,
    length_penalty: f32,
}

impl Default for Options {
    fn default() -> Self {
        Self { width: 4, length_penalty: 1.0 }
    }
}

/// A beginning of an answer.
struct Beam {
    sequence: Sequence,
    tokens: Vec<Token>,
    logprob: f32,
}

/// A finished answer.
struct Done {
    text: String,
    tokens: Vec<Token>,
    score: f32,
    reason: FinishReason,
}

/// A token that may follow a beam.
struct Next {
    beam: usize,
    token: Token,
    /// Log-probability of the whole answer.
    logprob: f32,
}

#[realm_tenant::run]
async fn main(request: Request) -> Result<FinishReason> {
    let options: Options = request.options()?;
    if !(1..=64).contains(&options.width) {
        return Err(Error::invalid(format!("width is {}; it must be from 1 to 64", options.width)));
    }
    if request.grammar.is_some() {
        return Err(Error::new(ErrorCode::Unsupported, "this program follows no grammar"));
    }
    let best = search(&Model::current(), &request, &options)?;
    emit(&best.text, &best.tokens)?;
    Ok(best.reason)
}

fn search(model: &Model, request: &Request, options: &Options) -> Result<Done> {
    let sequence = Sequence::of(model, &model.tokenize(&request.prompt)?)?;
    let room = request.max_tokens.unwrap_or(u32::MAX).min(sequence.room()?);
    let mut beams = vec![Beam { sequence, tokens: Vec::new(), logprob: 0.0 }];
    let mut done = Vec::new();
    let finished = |tokens: Vec<Token>, logprob: f32, text: String, reason| Done {
        score: logprob / (tokens.len() as f32).powf(options.length_penalty),
        text,
        tokens,
        reason,
    };
    for _ in 0..room {
        let mut grown = Vec::new();
        for (rank, next) in candidates(&beams, options.width)?.into_iter().enumerate() {
            if grown.len() == options.width {
                break;
            }
            let tokens = [&beams[next.beam].tokens[..], &[next.token]].concat();
            if !request.ignore_eos && model.is_end(next.token) {
                // An end that is not among the likeliest tokens would not have been followed either.
                if rank < options.width {
                    let text = model.decode(&beams[next.beam].tokens)?;
                    done.push(finished(tokens, next.logprob, text, FinishReason::Stop));
                }
            } else if let Some(text) = until_stop(model, &tokens, &request.stop)? {
                done.push(finished(tokens, next.logprob, text, FinishReason::Stop));
            } else {
                grown.push((next, tokens));
            }
        }
        if done.len() >= options.width {
            break;
        }
        beams = follow(beams, grown)?;
    }
    if done.is_empty() {
        for beam in beams {
            let text = model.decode(&beam.tokens)?;
            done.push(finished(beam.tokens, beam.logprob, text, FinishReason::Length));
        }
    }
    Ok(done.into_iter().max_by(|a, b| a.score.total_cmp(&b.score)).ok_or("no answer")?)
}

/// Returns the tokens that may follow, likeliest first: twice as many as there will be beams, because all of
/// the first half might end an answer.
fn candidates(beams: &[Beam], width: usize) -> Result<Vec<Next>> {
    let sequences: Vec<_> = beams.iter().map(|beam| &beam.sequence).collect();
    let mut all = Vec::new();
    for (beam, logits) in forward_each(&sequences)?.iter().enumerate() {
        let before = beams[beam].logprob - logits.log_normalizer();
        let next = |c: Candidate| Next { beam, token: c.token, logprob: before + c.logit };
        all.extend(logits.top(2 * width as u32).into_iter().map(next));
    }
    all.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
    all.truncate(2 * width);
    Ok(all)
}

/// Returns the beams that continue with these tokens. A beam with several continuations is forked for all but
/// the last.
fn follow(beams: Vec<Beam>, grown: Vec<(Next, Vec<Token>)>) -> Result<Vec<Beam>> {
    let mut sequences: Vec<_> = beams.into_iter().map(|beam| Some(beam.sequence)).collect();
    let mut next_beams = Vec::with_capacity(grown.len());
    for i in 0..grown.len() {
        let (next, tokens) = &grown[i];
        let again = grown[i + 1..].iter().any(|(later, _)| later.beam == next.beam);
        let sequence = match again {
            true => sequences[next.beam].as_ref().map(Sequence::fork).transpose()?,
            false => sequences[next.beam].take(),
        };
        let sequence = sequence.ok_or("a beam was followed after its last token")?;
        sequence.append(&[next.token])?;
        next_beams.push(Beam { sequence, tokens: tokens.clone(), logprob: next.logprob });
    }
    Ok(next_beams)
}

/// Returns the text before the first stop string, if it contains one.
fn until_stop(model: &Model, tokens: &[Token], stops: &[String]) -> Result<Option<String>> {
    if stops.is_empty() {
        return Ok(None);
    }
    let mut text = model.decode(tokens)?;
    let at = stops.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop)).min();
    Ok(at.map(|at| {
        text.truncate(at);
        text
    }))
}
