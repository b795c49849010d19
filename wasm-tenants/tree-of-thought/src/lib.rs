//! Thinks in steps along several paths at once, and continues the best ones (Yao et al., 'Tree of Thoughts',
//! 2023; breadth-first). The model proposes each step several times and then judges each path; the paths that
//! it judges most likely right are kept. All proposals are computed in the same forward passes, and share the
//! pages of their common beginning.
//!
//! Sends the steps of the best path and the answer that follows from them. Needs a temperature above 0.
//!
//! Input: `{"steps": 2, "samples": 3, "keep": 2, "step_tokens": 40}`.

use realm_tenant::*;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// Depth of the tree.
    steps: u32,
    /// Proposals for each path's next step.
    samples: u32,
    /// Paths that are kept after each step.
    keep: usize,
    /// Most tokens per step.
    step_tokens: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { steps: 2, samples: 3, keep: 2, step_tokens: 40 }
    }
}

/// The question about a path, asked in the middle of the model's own answer; only the probabilities of the
/// next word count.
const QUESTION: &str = "\nAre these steps right so far, yes or no? The answer is";

/// The question and the steps so far.
struct Path {
    sequence: Sequence,
    text: String,
    /// The tokens of the steps.
    tokens: Vec<Token>,
    /// The model's probability that the path is right, from 0 to 1.
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

/// Appends text to a path.
fn write(model: &Model, path: &mut Path, text: &str) -> Result<()> {
    let tokens = model.encode_piece(text, false);
    path.sequence.append(&tokens)?;
    path.text += text;
    path.tokens.extend(tokens);
    Ok(())
}

/// Returns every path with every proposal for its next step, each one a line.
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
        // Neither the end of the line nor the end of the answer becomes part of the path, because the next
        // step follows.
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

/// Asks the model whether each path is right, in one forward pass. The paths stay unchanged.
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

/// Generates the answer that follows the steps.
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
