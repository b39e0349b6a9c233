//! Kubernetes' quantity library (<https://pkg.go.dev/k8s.io/apiserver/pkg/cel/library#Quantity>).

use super::{
    super::{
        eval::Meter,
        value::{Failure, Other, Val},
    },
    Row, strings,
};
use crate::Quantity;

pub(super) const ROWS: &[Row] = &[
    (&["isQuantity(string) bool"], |meter, a| Ok(Val::Bool(parse(meter, &a[0])?.is_ok()))),
    (&["quantity(string) quantity"], |meter, a| Ok(Val::other(Other::Quantity(parse(meter, &a[0])??)))),
    (&[".sign(quantity) int"], |_, a| Ok(Val::Int(of(&a[0])?.signum().into()))),
    (&[".isInteger(quantity) bool"], |_, a| Ok(Val::Bool(of(&a[0])?.is_integer()))),
    (&[".asInteger(quantity) int"], |_, a| {
        let quantity = of(&a[0])?;
        if !quantity.is_integer() {
            return Err(Failure::new("cannot convert value to integer"));
        }
        Ok(Val::Int(quantity.value()))
    }),
    (&[".asApproximateFloat(quantity) double"], |_, a| Ok(Val::Double(of(&a[0])?.as_f64()))),
    (&[".add(quantity, quantity) quantity", ".add(quantity, int) quantity"], |_, a| {
        Ok(Val::other(Other::Quantity(of(&a[0])? + operand(&a[1])?)))
    }),
    (&[".sub(quantity, quantity) quantity", ".sub(quantity, int) quantity"], |_, a| {
        Ok(Val::other(Other::Quantity(of(&a[0])? - operand(&a[1])?)))
    }),
    (&[".isGreaterThan(quantity, quantity) bool"], |_, a| Ok(Val::Bool(of(&a[0])? > of(&a[1])?))),
    (&[".isLessThan(quantity, quantity) bool"], |_, a| Ok(Val::Bool(of(&a[0])? < of(&a[1])?))),
    (&[".compareTo(quantity, quantity) int"], |_, a| Ok(Val::Int(of(&a[0])?.cmp(&of(&a[1])?) as i64))),
];

fn parse(meter: &mut Meter<'_>, value: &Val<'_>) -> Result<Result<Quantity, Failure>, Failure> {
    meter.traverse(value.size())?;
    Ok(strings::text(value)?.parse().map_err(|error: crate::QuantityError| Failure::new(error.to_string())))
}

fn of(value: &Val<'_>) -> Result<Quantity, Failure> {
    match value.as_other()? {
        Other::Quantity(quantity) => Ok(*quantity),
        _ => Err(Failure::overload()),
    }
}

fn operand(value: &Val<'_>) -> Result<Quantity, Failure> {
    match value {
        Val::Int(number) => Ok(Quantity::from_value(*number)),
        other => of(other),
    }
}
