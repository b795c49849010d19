//  Results and what scenarios expect of them; tests/conformance/README.md has the rules.

import Foundation

indirect enum Json: Codable, Equatable {
    case null
    case bool(Bool)
    case number(Double)
    case text(String)
    case list([Json])
    case object([String: Json])

    init(from decoder: any Decoder) throws {
        let value = try decoder.singleValueContainer()
        if value.decodeNil() {
            self = .null
        } else if let bool = try? value.decode(Bool.self) {
            self = .bool(bool)
        } else if let number = try? value.decode(Double.self) {
            self = .number(number)
        } else if let text = try? value.decode(String.self) {
            self = .text(text)
        } else if let list = try? value.decode([Json].self) {
            self = .list(list)
        } else {
            self = .object(try value.decode([String: Json].self))
        }
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let bool): try container.encode(bool)
        case .number(let number): try container.encode(number)
        case .text(let text): try container.encode(text)
        case .list(let list): try container.encode(list)
        case .object(let object): try container.encode(object)
        }
    }

    static func parse(_ text: String) throws -> Json {
        try JSONDecoder().decode(Json.self, from: Data(text.utf8))
    }

    /// As a JSON text.
    var source: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        return (try? encoder.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? "?"
    }

    subscript(key: String) -> Json? {
        if case .object(let object) = self { return object[key] }
        return nil
    }

    var text: String? {
        if case .text(let text) = self { return text }
        return nil
    }

    var double: Double? {
        if case .number(let number) = self { return number }
        return nil
    }

    var count: UInt64? { double.map { UInt64($0) } }

    var list: [Json]? {
        if case .list(let list) = self { return list }
        return nil
    }

    var object: [String: Json]? {
        if case .object(let object) = self { return object }
        return nil
    }

    var isTrue: Bool { self == .bool(true) }
    var ids: [UInt32] { list?.compactMap { $0.double.map { UInt32($0) } } ?? [] }
    var texts: [String] { list?.compactMap(\.text) ?? [] }
}

extension Json: ExpressibleByStringLiteral, ExpressibleByNilLiteral {
    init(stringLiteral value: String) { self = .text(value) }
    init(nilLiteral: ()) { self = .null }
    init(_ value: UInt64) { self = .number(Double(value)) }
    init(_ value: UInt64?) { self = value.map { .number(Double($0)) } ?? .null }
    init(_ value: UInt32?) { self = value.map { .number(Double($0)) } ?? .null }
    init(_ value: Float?) { self = value.map { .number(Double($0)) } ?? .null }
    init(_ value: String?) { self = value.map { .text($0) } ?? .null }
    init(_ values: [String]) { self = .list(values.map { .text($0) }) }
    init(_ values: [UInt32]) { self = .list(values.map { .number(Double($0)) }) }
    init(_ values: [Float]) { self = .list(values.map { .number(Double($0)) }) }
}

struct Complaint: Error, CustomStringConvertible {
    let description: String
}

/// `value` with every `{"$ref": "name.key.0"}` replaced by the part of a kept result that it names.
func resolve(_ value: Json, _ kept: [String: Json]) throws -> Json {
    switch value {
    case .object(let object):
        if object.count == 1, let path = object["$ref"]?.text {
            let parts = path.split(separator: ".").map(String.init)
            guard var at = kept[parts[0]] else { throw Complaint(description: "nothing was kept for `\(path)`") }
            for part in parts.dropFirst() {
                let next = Int(part).flatMap { index in at.list.flatMap { $0.indices.contains(index) ? $0[index] : nil } } ?? at[part]
                guard let next else { throw Complaint(description: "`\(path)` leads nowhere") }
                at = next
            }
            return at
        }
        // What a step expects may name what the step itself gives, so it is resolved later.
        return .object(try object.filter { $0.key != "expect" }.mapValues { try resolve($0, kept) })
    case .list(let list):
        return .list(try list.map { try resolve($0, kept) })
    default:
        return value
    }
}

/// Says where `found` is not what `wanted` describes; nil if it is.
func mismatch(_ found: Json, _ wanted: Json) -> String? {
    switch wanted {
    case .object(let object):
        for (key, item) in object {
            if key.hasPrefix("$") {
                if let why = special(found, key, item) { return why }
            } else if let part = found[key] {
                if let why = mismatch(part, item) { return ".\(key)\(why)" }
            } else {
                return ": \(found.source.prefix(400)) has no `\(key)`"
            }
        }
        return nil
    case .list(let wanted):
        guard let list = found.list, list.count == wanted.count else {
            return ": \(found.source.prefix(400)) and not a list of \(wanted.count)"
        }
        for (i, (found, wanted)) in zip(list, wanted).enumerated() {
            if let why = mismatch(found, wanted) { return "[\(i)]\(why)" }
        }
        return nil
    default:
        return found == wanted ? nil : ": \(found.source.prefix(400)) and not \(wanted.source.prefix(400))"
    }
}

private func special(_ found: Json, _ name: String, _ argument: Json) -> String? {
    let number = found.double ?? .nan
    let than = argument.double ?? .nan
    let holds: Bool
    switch name {
    case "$at_least": holds = number >= than
    case "$at_most": holds = number <= than
    case "$near": holds = abs(number - than) <= 1e-3 * max(1, abs(than))
    case "$contains":
        if let text = found.text, let part = argument.text {
            holds = text.contains(part)
        } else {
            holds = found.list?.contains { mismatch($0, argument) == nil } ?? false
        }
    case "$length": holds = Double(found.text?.unicodeScalars.count ?? found.list?.count ?? -1) == than
    case "$norm":
        let squares = (found.list ?? []).compactMap(\.double).reduce(0) { $0 + $1 * $1 }
        holds = abs(squares.squareRoot() - than) <= 1e-3
    case "$starts":
        return mismatch(.list(Array((found.list ?? []).prefix(argument.list?.count ?? 0))), argument)
    case "$not": holds = mismatch(found, argument) != nil
    case "$json":
        guard let parsed = try? Json.parse(found.text ?? "") else { return ": \(found.source) is no JSON" }
        return mismatch(parsed, argument)
    default: return ": there is no matcher `\(name)`"
    }
    return holds ? nil : ": \(found.source.prefix(400)) is not \(name) \(argument.source.prefix(400))"
}
