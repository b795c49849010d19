//! The height of a syntax tree. Freeing a tree recurses once per level and may happen on any thread, so a
//! tree that is too high for the smallest stack is refused.

use crate::ast::{Body, Expr, Kind, Op, Statement, Target};
use crate::scopes::{children, op_children};

/// Returns the most nodes on a path from the root.
pub(crate) fn of(statements: &[Statement]) -> usize {
    1 + statements.iter().map(|statement| kind(&statement.kind)).max().unwrap_or(0)
}

fn kind(kind: &Kind) -> usize {
    let body = |body: &Body| of(&body.statements);
    match kind {
        Kind::Data(_) | Kind::Break | Kind::Continue | Kind::Unavailable(_) => 0,
        Kind::Print(value) => expression(value),
        Kind::If { arms, otherwise } => {
            let arms = arms.iter().map(|(test, body)| expression(test).max(of(body)));
            arms.max().unwrap_or(0).max(of(otherwise))
        }
        Kind::For(this) => {
            let head =
                [target(&this.target), expression(&this.iter), this.test.as_ref().map_or(0, expression)];
            head.into_iter().max().unwrap_or(0).max(body(&this.body)).max(body(&this.otherwise))
        }
        Kind::Macro(this) => parameters(this).max(body(&this.body)),
        Kind::Call { call, body: this } => expression(call).max(parameters(this)).max(body(&this.body)),
        Kind::Set { target: to, value } => target(to).max(expression(value)),
        Kind::SetBlock { target: to, filters, body: this } => target(to).max(ops(filters)).max(body(this)),
        Kind::Filter { filters, body: this } => ops(filters).max(body(this)),
        Kind::With { targets, body: this } => {
            let targets = targets.iter().map(|(to, value)| target(to).max(expression(value)));
            targets.max().unwrap_or(0).max(body(this))
        }
        Kind::Scope(this) => body(this),
    }
}

fn parameters(this: &crate::ast::Macro) -> usize {
    this.parameters.iter().filter_map(|p| p.default.as_ref()).map(expression).max().unwrap_or(0)
}

fn target(to: &Target) -> usize {
    match to {
        Target::Name(_) | Target::Attribute(..) => 1,
        Target::Tuple(targets) => 1 + targets.iter().map(target).max().unwrap_or(0),
    }
}

fn ops(ops: &[(u32, Op)]) -> usize {
    let mut most = 0;
    for (_, op) in ops {
        let _ = op_children(op, &mut |child| {
            most = most.max(expression(child));
            Ok(())
        });
    }
    most
}

fn expression(expr: &Expr) -> usize {
    let mut most = 0;
    let _ = children(expr, &mut |child, _| {
        most = most.max(expression(child));
        Ok(())
    });
    1 + most
}
