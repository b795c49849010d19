//! The enforced formats of strings: those of the specification that a grammar can hold, and those that
//! pydantic and OpenAPI add. All other formats only describe a text, as the specification says.
//!
//! An expression may be narrower than its format, so that every library accepts the result: a year has four
//! digits, fractions of seconds have at most six digits, and there is no leap second.

use llguidance::derivre::RegexAst;

const DAYS: &str =
    "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8])";
/// Years that have a 29 February.
const LEAP: &str = "[0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00";
const TIME: &str = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?";
const ZONE: &str = "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
const LABEL: &str = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
const BYTE: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const HEX: &str = "[0-9a-fA-F]";
const WORD: &str = "[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2}";

fn date() -> String {
    format!("(([0-9]{{3}}[1-9]|[0-9]{{2}}[1-9]0|[0-9][1-9]00|[1-9]000)-({DAYS})|({LEAP})-02-29)")
}

fn ipv4() -> String {
    format!(r"({BYTE}\.){{3}}{BYTE}")
}

fn ipv6() -> String {
    let group = format!("{HEX}{{1,4}}");
    let mut options = vec![format!("({group}:){{7}}{group}"), "::".to_owned()];
    // `::` stands for at least one group.
    for before in 0..=6usize {
        let head = if before == 0 { String::new() } else { format!("({group}:){{{}}}{group}", before - 1) };
        let after = 7 - before;
        options.push(format!("{head}::({group}:){{0,{}}}{group}", after - 1));
        if before > 0 {
            options.push(format!("{head}::"));
        }
    }
    options.push(format!("({group}:){{6}}{group}::"));
    format!("({})", options.join("|"))
}

fn uuid(version: &str) -> String {
    format!("{HEX}{{8}}-{HEX}{{4}}-{version}{HEX}{{3}}-[89abAB]{HEX}{{3}}-{HEX}{{12}}")
}

fn duration() -> String {
    let number = "[0-9]{1,4}";
    let time = format!("T({number}H({number}M({number}S)?)?|{number}M({number}S)?|{number}S)");
    let date = format!("({number}Y({number}M({number}D)?)?|{number}M({number}D)?|{number}D)({time})?");
    format!("P({date}|{time}|{number}W)")
}

fn uri() -> String {
    let segment = format!("({WORD})");
    let host = format!(r"({LABEL}(\.{LABEL})*|{})", ipv4());
    let tail = format!(r"(\?({WORD}|[/?])*)?(#({WORD}|[/?])*)?");
    let authority = format!("//([A-Za-z0-9._~-]+@)?{host}(:[1-9][0-9]{{0,3}})?(/{segment}*)*");
    format!(r"[A-Za-z][A-Za-z0-9+.-]{{0,30}}:({authority}|{segment}+(/{segment}*)*){tail}")
}

/// Returns the texts of a format; `None` for a format that is not enforced.
pub(super) fn format(name: &str) -> Option<RegexAst> {
    let expression = match name {
        "date" => date(),
        "time" => format!("{TIME}{ZONE}"),
        "date-time" => format!("{}T{TIME}{ZONE}", date()),
        "duration" => duration(),
        "email" | "idn-email" => {
            let part = "[A-Za-z0-9_+-]+";
            format!(r"{part}(\.{part})*@({LABEL}\.)+[A-Za-z]{{2,20}}")
        }
        "hostname" | "idn-hostname" => format!(r"{LABEL}(\.{LABEL})*"),
        "ipv4" | "ipv4network" => ipv4(),
        "ipv4interface" => format!("{}(/([12]?[0-9]|3[0-2]))?", ipv4()),
        "ipv6" | "ipv6network" => ipv6(),
        "ipv6interface" => format!("{}(/([1-9]?[0-9]|1[01][0-9]|12[0-8]))?", ipv6()),
        "ipvanyaddress" | "ipvanynetwork" | "ipvanyinterface" => format!("{}|{}", ipv4(), ipv6()),
        "uuid" => format!("{HEX}{{8}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{12}}"),
        "uuid1" | "uuid3" | "uuid4" | "uuid5" | "uuid6" | "uuid7" | "uuid8" => uuid(&name[4..]),
        "uri" | "iri" | "url" => uri(),
        "uri-reference" | "iri-reference" => format!("{}|(/({WORD})+)+|({WORD}){{0,0}}", uri()),
        "json-pointer" => "(/([^/~]|~[01])*)*".to_owned(),
        "base64" | "byte" => {
            "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?".to_owned()
        }
        "base64url" => {
            "([A-Za-z0-9_-]{4})*([A-Za-z0-9_-][AQgw]==|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048]=)?".to_owned()
        }
        _ => return None,
    };
    Some(RegexAst::Regex(expression))
}

#[cfg(test)]
mod tests {
    use super::super::pattern::compiled;
    use super::*;

    #[test]
    fn formats_are_what_they_say() {
        for (name, good, bad) in [
            (
                "date",
                &["2024-02-29", "2000-02-29", "0001-01-31"][..],
                &["2023-02-29", "1900-02-29", "0000-01-01", "2024-04-31", "24-1-1"][..],
            ),
            (
                "date-time",
                &["2024-05-06T07:08:09Z", "2024-05-06T07:08:09.5+02:00"],
                &["2024-05-06", "2024-05-06T24:00:00Z", "2024-05-06T07:08:60Z"],
            ),
            ("time", &["07:08:09Z"], &["7:8:9", "07:08:09"]),
            ("duration", &["P1Y2M3D", "PT5M", "P3W", "P1DT2H"], &["P", "PT", "1D", "P1H"]),
            ("email", &["a.b+c@example.com"], &["a@b", "a..b@c.de", "@x.yz"]),
            ("ipv4", &["127.0.0.1", "255.255.255.255"], &["256.1.1.1", "1.2.3", "01.2.3.4"]),
            (
                "ipv6",
                &["::", "::1", "1::", "fe80::1:2", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::"],
                &[":", "1:2", "1:2:3:4:5:6:7:8:9", "1::2::3", "1:2:3:4:5:6:7::8"],
            ),
            ("uuid", &["123e4567-e89b-12d3-a456-426614174000"], &["123e4567"]),
            ("uuid4", &["123e4567-e89b-42d3-a456-426614174000"], &["123e4567-e89b-12d3-a456-426614174000"]),
            (
                "uri",
                &["https://example.com/a?b#c", "mailto:a@b.de", "http://1.2.3.4:80"],
                &["example.com", "//x", "http://"],
            ),
            ("base64", &["", "TWFu", "TWE=", "TQ=="], &["TWF", "T===", "!"]),
        ] {
            let mut regex = compiled(&format(name).unwrap()).unwrap();
            for text in good {
                assert!(regex.is_match(text), "{name}: {text}");
            }
            for text in bad {
                assert!(!regex.is_match(text), "{name}: {text}");
            }
        }
        assert!(format("password").is_none() && format("shoe-size").is_none());
    }
}
