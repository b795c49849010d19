//! Prefers tokens that the last layers favor over those that early layers favor (DoLa: Chuang et al.,
//! 'Decoding by Contrasting Layers', 2024). Composes the forward pass itself: the hidden state after a layer
//! in the middle goes through the output matrix too, and its logits are subtracted from the final ones. Only
//! tokens that are plausible by the final logits are allowed (Li et al., 'Contrastive Decoding', 2023): at
//! least `alpha` times as likely as the likeliest.
//!
//! Input: `{"layer": 15, "alpha": 0.1, "beta": 1.0}`: `layer` is the number of early layers (default: half of
//! all layers), and `beta` the factor on their logits in the subtraction.

use realm_tenant::layers::{KvCache, Layer, Tensor, embed, lm_head, load_layer};
use realm_tenant::*;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    layer: Option<u32>,
    alpha: f32,
    beta: f32,
}

impl Default for Options {
    fn default() -> Self {
        Self { layer: None, alpha: 0.1, beta: 1.0 }
    }
}

/// Most tokens that are tested for plausibility.
const CANDIDATES: u32 = 256;

#[realm_tenant::run]
async fn main(request: Request) -> Result<FinishReason> {
    let options: Options = request.options()?;
    let model = Model::current();
    let count = model.info().layers;
    let early = options.layer.unwrap_or(count / 2);
    if early >= count {
        return Err(Error::invalid(format!("layer is {early}; the model has {count}, so it must be less")));
    }
    if !(options.alpha > 0.0 && options.alpha <= 1.0) {
        return Err(Error::invalid(format!("alpha is {}; it must be above 0 and at most 1", options.alpha)));
    }
    let prompt = model.tokenize(&request.prompt)?;
    // This sequence computes nothing; it only tells how many tokens have room.
    let sequence = Sequence::of(&model, &prompt)?;
    let mut answer = Answer::new(&model, &request, &sequence)?;
    let room = request.max_tokens.unwrap_or(u32::MAX).min(sequence.room()?);
    let layers = (0..count).map(|index| load_layer(&model, index)).collect::<Result<Vec<_>>>()?;
    let cache = KvCache::open(&model, prompt.len() as u32 + room)?;
    let mut next = prompt;
    loop {
        let (seen, last) = forward(&layers, embed(&model, &next)?, &cache, early)?;
        contrast(&model, &last, &seen, &options)?;
        let token = answer.choose(&last)?;
        let step = answer.push(token)?;
        emit(step.text, &[token])?;
        if let Some(reason) = step.finish {
            return Ok(reason);
        }
        next = vec![token];
    }
}

/// Returns the logits of the last row: after the first `early` layers, and after all layers.
fn forward(layers: &[Layer], mut x: Tensor, cache: &KvCache, early: u32) -> Result<(Logits, Logits)> {
    let last = [x.rows() - 1];
    let mut middle = None;
    for (index, layer) in layers.iter().enumerate() {
        if index == early as usize {
            middle = Some(x.gather(&last)?);
        }
        x = layer.attention_forward(&x, cache)?;
        x = layer.feed_forward(&x)?;
    }
    let middle = middle.ok_or("the model has no layers")?;
    Ok((logits_of(&middle)?, logits_of(&x.gather(&last)?)?))
}

fn logits_of(x: &Tensor) -> Result<Logits> {
    Ok(lm_head(x)?.pop().ok_or("a row without logits")?)
}

/// Sets `last = last - beta * seen` for plausible tokens, and bans all others. Both logits differ from
/// log-probabilities by a constant, which does not change the choice.
fn contrast(model: &Model, last: &Logits, seen: &Logits, options: &Options) -> Result<()> {
    let likeliest = last.top(CANDIDATES);
    let least = likeliest.first().map_or(0.0, |best| best.logit) + options.alpha.ln();
    let plausible: Vec<_> = likeliest.iter().take_while(|c| c.logit >= least).map(|c| c.token).collect();
    last.add(seen, -options.beta)?;
    last.keep(&TokenSet::of(model, &plausible)?)
}
