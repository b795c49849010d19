//! Thinks in steps, several ways at once, and goes on from those that look best (Yao et al., 'Tree of Thoughts', 2023;
//! breadth-first). Each step is proposed several times, the model is asked of each whether it is right, and the paths that
//! it holds likeliest to be are kept. All proposals are computed in the same forward passes, and share the pages of what they
//! have in common.
//!
//! Sends the steps of the best path and the answer that follows from them. Wants a temperature above 0.
//!
//! Input: `{"steps": 2, "samples": 3, "keep": 2, "step_tokens": 40}`.

use realm_tenant::*;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// How deep the tree is.
    steps: u32,
    /// Proposals for each path's next step.
    samples: u32,
    /// Paths that are gone on from.
    keep: usize,
    /// Tokens of a step at most.
    step_tokens: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { steps: 2, samples: 3, keep: 2, step_tokens: 40 }
    }
}

/// What the model is asked of a path, in the midst of its own answer; only its opinion on the next word counts.
const QUESTION: &str = "\nAre these steps right so far, yes or no? The answer is";

/// The question, then steps that were thought.
struct Path {
    sequence: Sequence,
    text: String,
    /// Those of the steps.
    tokens: Vec<Token>,
    /// How likely the model holds it to be right, from 0 to 1.
    value: f32,
}

/// A path whose last step is being written.
struct Proposal {
    path: Path,
    sampler: Sampler,
    line: TextDecoder,
    done: bool,
}

#[realm_tenant::run]
async fn main(request: Request) -> Result<FinishReason> {
    let options: Options = request.options()?;
    if options.steps == 0 || options.samples == 0 || options.keep == 0 || options.step_tokens == 0 {
        return Err(Error::invalid("steps, samples, keep and step_tokens must be at least 1"));
    }
    let model = Model::current();
    let sequence = Sequence::of(&model, &model.tokenize(&request.prompt)?)?;
    let mut paths = vec![Path { sequence, text: String::new(), tokens: Vec::new(), value: 1.0 }];
    for step in 1..=options.steps {
        paths = think(&model, &request, &options, &paths, step)?;
        judge(&model, &mut paths)?;
        paths.sort_by(|a, b| b.value.total_cmp(&a.value));
        paths.truncate(options.keep);
    }
    let mut best = paths.swap_remove(0);
    write(&model, &mut best, "Answer:")?;
    emit(&best.text, &best.tokens)?;
    conclude(&model, &request, &best.sequence)
}

/// Adds text to a path.
fn write(model: &Model, path: &mut Path, text: &str) -> Result<()> {
    let tokens = model.encode_piece(text, false);
    path.sequence.append(&tokens)?;
    path.text += text;
    path.tokens.extend(tokens);
    Ok(())
}

/// Every path with every proposal for its next step, each a line.
fn think(
    model: &Model,
    request: &Request,
    options: &Options,
    paths: &[Path],
    step: u32,
) -> Result<Vec<Path>> {
    let mut proposals = Vec::new();
    for path in paths {
        for _ in 0..options.samples {
            let mut path = Path {
                sequence: path.sequence.fork()?,
                text: path.text.clone(),
                tokens: path.tokens.clone(),
                value: path.value,
            };
            write(model, &mut path, &format!("Step {step}:"))?;
            let sampling = request.sampling.reseeded(u64::from(step) << 32 | proposals.len() as u64);
            let sampler = Sampler::open(model, &sampling, &path.sequence.tokens())?;
            let line = TextDecoder::new(model, &["\n".to_owned()]);
            proposals.push(Proposal { path, sampler, line, done: false });
        }
    }
    for _ in 0..options.step_tokens {
        let mut running: Vec<_> = proposals.iter_mut().filter(|proposal| !proposal.done).collect();
        let sequences: Vec<_> = running.iter().map(|proposal| &proposal.path.sequence).collect();
        if sequences.is_empty() {
            break;
        }
        let logits = forward_each(&sequences)?;
        for (proposal, logits) in running.iter_mut().zip(&logits) {
            proposal.advance(model, logits)?;
        }
    }
    proposals.into_iter().map(|proposal| proposal.finish(model)).collect()
}

impl Proposal {
    fn advance(&mut self, model: &Model, logits: &Logits) -> Result<()> {
        let token = self.sampler.sample(logits)?;
        let piece = self.line.push(token)?;
        self.path.text += &piece.text;
        // Neither the end of the line nor of the answer becomes part of the path: the next step follows.
        self.done = piece.stopped || model.is_end(token);
        if !self.done {
            self.path.sequence.append(&[token])?;
            self.path.tokens.push(token);
        }
        Ok(())
    }

    fn finish(mut self, model: &Model) -> Result<Path> {
        self.path.text += &self.line.finish();
        write(model, &mut self.path, "\n")?;
        Ok(self.path)
    }
}

/// Asks the model whether each path is right, in one step. The paths stay as they are.
fn judge(model: &Model, paths: &mut [Path]) -> Result<()> {
    let question = model.encode_piece(QUESTION, false);
    let mut asked = Vec::new();
    for path in paths.iter() {
        let sequence = path.sequence.fork()?;
        sequence.append(&question)?;
        asked.push(sequence);
    }
    let first = |word: &str| model.encode_piece(word, false).first().copied();
    let tokens = |words: [&str; 2]| words.into_iter().filter_map(first).collect::<Vec<_>>();
    let (yes, no) = (tokens([" yes", " Yes"]), tokens([" no", " No"]));
    let logits = forward_each(&asked.iter().collect::<Vec<_>>())?;
    for (path, logits) in paths.iter_mut().zip(&logits) {
        let probability = |tokens: &[Token]| -> Result<f32> {
            tokens.iter().map(|&token| Ok(logits.logprob(token)?.exp())).sum()
        };
        let (yes, no) = (probability(&yes)?, probability(&no)?);
        path.value = yes / (yes + no).max(f32::MIN_POSITIVE);
    }
    Ok(())
}

/// Answers from what was thought.
fn conclude(model: &Model, request: &Request, sequence: &Sequence) -> Result<FinishReason> {
    let mut answer = Answer::new(model, request, sequence)?;
    loop {
        let token = answer.choose(&sequence.forward()?)?;
        let step = answer.push(token)?;
        emit(step.text, &[token])?;
        if let Some(reason) = step.finish {
            return Ok(reason);
        }
        sequence.append(&[token])?;
    }
}
