//! Macros and `call` blocks.

use std::rc::Rc;
use std::sync::Arc;

use super::{Arguments, Renderer, Scope};
use crate::ast::{self, Expr, Op, Symbol};
use crate::error::{At, Result, fault};
use crate::text::{Builder, Text};
use crate::value::{Dict, Items, Macro, Missing, Value, shown};

impl Renderer<'_> {
    /// Makes a macro; its scope is kept.
    pub(super) fn macro_value(&self, definition: &Arc<ast::Macro>, scope: &Rc<Scope>) -> Result<Value> {
        self.keep_scope(scope);
        Ok(Value::Macro(closure(definition, scope)))
    }

    /// Calls a macro with the block's body as `caller`.
    pub(super) fn call_block(&self, call: &Expr, body: &Arc<ast::Macro>, scope: &Rc<Scope>) -> Result<Value> {
        let Expr::Postfix(value, ops) = call else { return Err(fault("`call` needs a call of a macro")) };
        let Some(((line, Op::Call(arguments)), before)) = ops.split_last() else {
            return Err(fault("`call` needs a call of a macro"));
        };
        let callee = self.postfix(value, before, scope)?;
        let mut arguments = self.arguments(arguments, scope)?;
        let caller = closure(body, scope);
        arguments.named.push((Text::template("caller"), Value::Macro(Rc::clone(&caller))));
        let result = self.call(&callee, arguments).at(*line);
        if Rc::strong_count(&caller) > 1 {
            self.keep_scope(scope);
        }
        result
    }

    /// Returns the text that a macro writes.
    pub(super) fn call_macro(&self, this: &Macro, mut arguments: Arguments) -> Result<Text> {
        let definition = &*this.definition;
        let scope = Scope::new(&self.budget, Some(&this.scope), &definition.body.hidden)?;
        let count = definition.parameters.len();
        for parameter in &definition.parameters {
            scope.hide(parameter.symbol)?;
        }
        let rest = arguments.positional.split_off(count.min(arguments.positional.len()));
        let given = arguments.positional.len();
        let mut missing = Vec::new();
        for (parameter, value) in definition.parameters.iter().zip(std::mem::take(&mut arguments.positional))
        {
            scope.set(parameter.symbol, value)?;
        }
        for parameter in &definition.parameters[given..] {
            // Each named argument is compared with the parameters' names.
            self.budget.step(arguments.named.len() as u64 / 16)?;
            match arguments.take_named(&parameter.name) {
                Some(value) => scope.set(parameter.symbol, value)?,
                None => missing.push(parameter),
            }
        }
        self.specials(definition, &scope, rest, arguments)?;
        for parameter in missing {
            let value = match &parameter.default {
                Some(default) => self.eval(default, &scope)?,
                None => Value::undefined(Missing::Parameter(shown(&parameter.name))),
            };
            scope.set(parameter.symbol, value)?;
        }
        let mut out = Builder::new(&self.budget);
        self.called(|| self.statements(&definition.body.statements, &scope, &mut out))?;
        Ok(out.finish())
    }

    /// Sets `caller`, `kwargs` and `varargs`, or refuses the arguments that would be in them.
    fn specials(
        &self,
        definition: &ast::Macro,
        scope: &Rc<Scope>,
        rest: Vec<Value>,
        mut arguments: Arguments,
    ) -> Result<()> {
        let name = definition.name.as_deref().map_or_else(|| "caller".to_owned(), shown);
        if definition.takes_caller && definition.parameters.iter().all(|p| p.name != "caller") {
            let caller = arguments.take_named("caller");
            let caller = caller.unwrap_or_else(|| {
                Value::undefined(Missing::Reason(
                    "`caller` is only defined in a macro that a `call` block calls",
                ))
            });
            set_special(self.caller_symbol, caller, scope)?;
        }
        if definition.takes_kwargs {
            let entries = arguments.named.into_iter().map(|(name, value)| (Value::Str(name), value));
            set_special(self.kwargs_symbol, Dict::of_entries(&self.budget, entries)?, scope)?;
        } else if let Some((unknown, _)) = arguments.named.first() {
            let unknown: String = unknown.as_str().chars().take(60).collect();
            return Err(fault(format!("the macro `{name}` takes no argument `{unknown}`")));
        }
        if definition.takes_varargs {
            let mut items = Items::new(&self.budget)?;
            rest.into_iter().try_for_each(|value| items.push(value))?;
            set_special(self.varargs_symbol, items.tuple()?, scope)?;
        } else if !rest.is_empty() {
            let count = definition.parameters.len();
            return Err(fault(format!("the macro `{name}` takes at most {count} arguments")));
        }
        Ok(())
    }
}

fn set_special(symbol: Option<Symbol>, value: Value, scope: &Scope) -> Result<()> {
    match symbol {
        Some(symbol) => scope.set(symbol, value),
        None => Ok(()),
    }
}

fn closure(definition: &Arc<ast::Macro>, scope: &Rc<Scope>) -> Rc<Macro> {
    Rc::new(Macro { definition: Arc::clone(definition), scope: Rc::clone(scope) })
}
