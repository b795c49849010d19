//! Slices, `value[start:stop:step]`.

use super::Renderer;
use crate::error::{Result, fault};
use crate::text::Builder;
use crate::value::{Items, Range, Value};

/// Returns the indices of a slice, with Python's rules.
fn indices(bounds: [Option<Value>; 3], len: usize) -> Result<Range> {
    let mut numbers = [None; 3];
    for (number, bound) in numbers.iter_mut().zip(&bounds) {
        *number = match bound {
            None | Some(Value::None) => None,
            Some(value) => Some(value.as_int().ok_or_else(|| {
                fault(format!("{} in a slice, where an integer is needed", value.described()))
            })?),
        };
    }
    let [start, stop, step] = numbers;
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(fault("the step of a slice can't be zero"));
    }
    let len = len as i128;
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let place = |bound: Option<i128>, default| match bound {
        None => default,
        Some(n) if n < 0 => n.saturating_add(len).max(low),
        Some(n) => n.min(high),
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    Ok(Range { start: place(start, first), stop: place(stop, last), step })
}

impl Renderer<'_> {
    pub(crate) fn slice(&self, value: &Value, bounds: [Option<Value>; 3]) -> Result<Value> {
        match value {
            Value::Str(text) => {
                self.budget.read(text.len())?;
                let range = indices(bounds, text.chars())?;
                if range.len() == 0 {
                    return Ok(Value::Str(text.slice(&self.budget, 0..0)?));
                }
                let (start, stop) = (range.start as usize, range.stop.max(0) as usize);
                if range.step == 1 {
                    let from = text.byte_of(start);
                    let to = text.byte_of(stop);
                    return text.slice(&self.budget, from..to).map(Value::Str);
                }
                let places: Vec<usize> = text.as_str().char_indices().map(|(at, _)| at).collect();
                let _places = self.budget.charge(places.len() * size_of::<usize>())?;
                let mut out = Builder::new(&self.budget);
                for i in 0..range.len() {
                    self.budget.step(1)?;
                    let at = range.item(i) as usize;
                    let end = places.get(at + 1).copied().unwrap_or(text.len());
                    out.push_slice(text, places[at]..end)?;
                }
                Ok(Value::Str(out.finish().as_markup(text.is_markup())))
            }
            Value::List(list) | Value::Tuple(list) => {
                let range = indices(bounds, list.items.len())?;
                let mut items = Items::new(&self.budget)?;
                for i in 0..range.len() {
                    items.push(list.items[range.item(i) as usize].clone())?;
                }
                if matches!(value, Value::List(_)) { items.list() } else { items.tuple() }
            }
            Value::Range(of) => {
                let len = usize::try_from(of.len()).unwrap_or(usize::MAX);
                let range = indices(bounds, len)?;
                let at = |index: i128| of.start.wrapping_add(of.step.wrapping_mul(index));
                Ok(Value::Range(std::rc::Rc::new(Range {
                    start: at(range.start),
                    stop: at(range.stop),
                    step: of.step.wrapping_mul(range.step),
                })))
            }
            Value::Undefined(missing) => Err(fault(missing.message())),
            other => Err(fault(format!("{} has no parts to slice", other.described()))),
        }
    }
}
