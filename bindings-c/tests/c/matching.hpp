// Results and what scenarios expect of them; tests/conformance/README.md has the rules.
#pragma once

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>

using Json = nlohmann::json;
using Kept = std::map<std::string, Json>;

// `value` with every `{"$ref": "name.key.0"}` replaced by the part of a kept result that it names.
inline Json resolve(const Json &value, const Kept &kept) {
    if (value.is_object() && value.size() == 1 && value.contains("$ref")) {
        std::string path = value["$ref"];
        size_t dot = path.find('.');
        auto found = kept.find(path.substr(0, dot));
        if (found == kept.end()) throw std::runtime_error("nothing was kept for `" + path + "`");
        const Json *at = &found->second;
        while (dot != std::string::npos) {
            size_t end = path.find('.', dot + 1);
            std::string part = path.substr(dot + 1, end == std::string::npos ? end : end - dot - 1);
            at = at->is_array() ? &at->at(std::stoul(part)) : &at->at(part);
            dot = end;
        }
        return *at;
    }
    if (!value.is_structured()) return value;
    Json out = value.is_object() ? Json::object() : Json::array();
    if (value.is_array()) {
        for (const Json &item : value) out.push_back(resolve(item, kept));
        return out;
    }
    // What a step expects may name what the step itself gives, so it is resolved later.
    for (auto &[key, item] : value.items()) out[key] = key == "expect" ? Json() : resolve(item, kept);
    return out;
}

inline std::optional<std::string> mismatch(const Json &found, const Json &wanted);

inline std::string shortened(const Json &value) { return value.dump().substr(0, 400); }

inline size_t characters(const std::string &text) {
    size_t count = 0;
    for (unsigned char byte : text) count += (byte & 0xC0) != 0x80;
    return count;
}

inline std::optional<std::string> special(const Json &found, const std::string &name, const Json &argument) {
    auto number = [](const Json &value) { return value.is_number() ? value.get<double>() : std::nan(""); };
    bool holds = false;
    if (name == "$at_least") {
        holds = number(found) >= number(argument);
    } else if (name == "$at_most") {
        holds = number(found) <= number(argument);
    } else if (name == "$near") {
        holds = std::abs(number(found) - number(argument)) <= 1e-3 * std::max(1.0, std::abs(number(argument)));
    } else if (name == "$contains") {
        if (found.is_string() && argument.is_string()) {
            holds = found.get<std::string>().find(argument.get<std::string>()) != std::string::npos;
        } else if (found.is_array()) {
            for (const Json &item : found) holds = holds || !mismatch(item, argument);
        }
    } else if (name == "$length") {
        size_t length = found.is_string() ? characters(found.get<std::string>()) : found.is_array() ? found.size() : SIZE_MAX;
        holds = length == argument.get<size_t>();
    } else if (name == "$norm") {
        double squares = 0;
        for (const Json &item : found) squares += number(item) * number(item);
        holds = std::abs(std::sqrt(squares) - number(argument)) <= 1e-3;
    } else if (name == "$starts") {
        if (!found.is_array() || found.size() < argument.size()) return ": " + shortened(found) + " is too short";
        return mismatch(Json(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(argument.size())), argument);
    } else if (name == "$not") {
        holds = mismatch(found, argument).has_value();
    } else if (name == "$json") {
        Json parsed = Json::parse(found.is_string() ? found.get<std::string>() : "", nullptr, false);
        if (parsed.is_discarded()) return ": " + shortened(found) + " is no JSON";
        return mismatch(parsed, argument);
    } else {
        return ": there is no matcher `" + name + "`";
    }
    if (holds) return std::nullopt;
    return ": " + shortened(found) + " is not " + name + " " + shortened(argument);
}

// Says where `found` is not what `wanted` describes; nothing if it is.
inline std::optional<std::string> mismatch(const Json &found, const Json &wanted) {
    if (wanted.is_object()) {
        for (auto &[key, item] : wanted.items()) {
            if (key[0] == '$') {
                if (auto why = special(found, key, item)) return why;
            } else if (!found.is_object() || !found.contains(key)) {
                return ": " + shortened(found) + " has no `" + key + "`";
            } else if (auto why = mismatch(found[key], item)) {
                return "." + key + *why;
            }
        }
        return std::nullopt;
    }
    if (wanted.is_array()) {
        if (!found.is_array() || found.size() != wanted.size()) {
            return ": " + shortened(found) + " and not a list of " + std::to_string(wanted.size());
        }
        for (size_t i = 0; i < wanted.size(); i++) {
            if (auto why = mismatch(found[i], wanted[i])) return "[" + std::to_string(i) + "]" + *why;
        }
        return std::nullopt;
    }
    bool same = found.is_number() && wanted.is_number() ? found.get<double>() == wanted.get<double>() : found == wanted;
    if (same) return std::nullopt;
    return ": " + shortened(found) + " and not " + shortened(wanted);
}
