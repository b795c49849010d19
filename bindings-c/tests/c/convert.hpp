// JSON of scenarios as Realm's objects, and results as JSON.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <thread>

#include "handles.hpp"
#include "matching.hpp"

// The value of an enum, by the names of all in their order.
template <typename Enum>
Enum one_of(const std::string &name, std::initializer_list<const char *> names) {
    auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) throw std::runtime_error("there is no `" + name + "`");
    return static_cast<Enum>(found - names.begin());
}

// What a scenario has a logits processor do.
inline const char *process_logits(void *data, const uint32_t *tokens, size_t tokens_len, float *logits, size_t logits_len) REALM_NOEXCEPT {
    const Json &asked = *static_cast<Json *>(data);
    if (asked.contains("fail")) return asked["fail"].get_ref<const std::string &>().c_str();
    if (asked.contains("only")) {
        std::vector<uint32_t> allowed = asked["only"];
        for (uint32_t id = 0; id < logits_len; id++) {
            if (std::find(allowed.begin(), allowed.end(), id) == allowed.end()) logits[id] = -INFINITY;
        }
    }
    if (asked.value("not_the_last", false)) logits[tokens[tokens_len - 1]] = -INFINITY;
    if (asked.value("nan", false)) logits[0] = NAN;
    return nullptr;
}

inline void delete_json(void *data) REALM_NOEXCEPT { delete static_cast<Json *>(data); }

// A tool that answers as a scenario has it.
inline void run_tool(void *data, const char *arguments, RealmToolCall *call) REALM_NOEXCEPT {
    const Json &tool = *static_cast<Json *>(data);
    if (tool.contains("error")) {
        realm_tool_call_fail(call, tool["error"].get_ref<const std::string &>().c_str());
    } else if (tool.contains("answer")) {
        realm_tool_call_answer(call, tool["answer"].dump().c_str());
    } else {
        // Later, and from another thread.
        std::thread([call, answer = std::string(arguments)] { realm_tool_call_answer(call, answer.c_str()); }).detach();
    }
}

// Builds a request. Unknown keys fail, so that a scenario never asks for something that is not done.
inline Owned<RealmRequest> request_of(const Json &asked, const std::function<RealmAdapter *(std::string)> &adapter_named) {
    Outcome outcome;
    Owned<RealmRequest> request;
    if (asked.contains("messages")) {
        request = own(realm_request_chat());
        for (const Json &message : asked["messages"]) {
            TRY(outcome, realm_request_add_message_json(request.get(), message.dump().c_str(), &outcome.error));
        }
    } else if (asked.contains("tokens")) {
        std::vector<uint32_t> tokens = asked["tokens"];
        request = own(TRY(outcome, realm_request_tokens(tokens.data(), tokens.size(), &outcome.error)));
    } else if (!asked.contains("prompt")) {
        // Options alone.
        request = own(realm_request_chat());
    } else {
        request = own(TRY(outcome, realm_request_text(asked.at("prompt").get<std::string>().c_str(), &outcome.error)));
    }
    RealmRequest *r = request.get();
    float scale = asked.value("adapter_scale", 1.0F);
    for (auto &[key, value] : asked.items()) {
        std::string text = value.is_string() ? value.get<std::string>() : value.dump();
        if (key == "prompt" || key == "messages" || key == "tokens" || key == "repetition_window" || key == "adapter_scale") {
        } else if (key == "tool_choice") {
            const std::string choice = value.is_string() ? value.get<std::string>() : value.dump();
            TRY(outcome, realm_request_set_tool_choice(r, choice.c_str(), &outcome.error));
        } else if (key == "tools") {
            for (const Json &tool : value) TRY(outcome, realm_request_add_tool(r, tool.dump().c_str(), &outcome.error));
        } else if (key == "add_generation_prompt") {
            realm_request_set_add_generation_prompt(r, value);
        } else if (key == "continue_final_message") {
            realm_request_set_continue_final_message(r, value);
        } else if (key == "special") {
            realm_request_set_special(r, value);
        } else if (key == "template_variables") {
            for (auto &[name, item] : value.items()) {
                TRY(outcome, realm_request_set_template_variable(r, name.c_str(), item.dump().c_str(), &outcome.error));
            }
        } else if (key == "enable_thinking") {
            realm_request_set_enable_thinking(r, value);
        } else if (key == "reasoning_effort") {
            TRY(outcome, realm_request_set_reasoning_effort(r, text.c_str(), &outcome.error));
        } else if (key == "reasoning_format") {
            TRY(outcome, realm_request_set_reasoning_format(r, text.c_str(), &outcome.error));
        } else if (key == "temperature") {
            realm_request_set_temperature(r, value);
        } else if (key == "top_k") {
            realm_request_set_top_k(r, value);
        } else if (key == "top_p") {
            realm_request_set_top_p(r, value);
        } else if (key == "min_p") {
            realm_request_set_min_p(r, value);
        } else if (key == "typical_p") {
            realm_request_set_typical_p(r, value);
        } else if (key == "repetition_penalty") {
            realm_request_set_repetition_penalty(r, value, asked.value("repetition_window", size_t{64}));
        } else if (key == "frequency_penalty") {
            realm_request_set_frequency_penalty(r, value);
        } else if (key == "presence_penalty") {
            realm_request_set_presence_penalty(r, value);
        } else if (key == "logit_bias") {
            for (auto &[id, bias] : value.items()) {
                realm_request_set_logit_bias(r, static_cast<uint32_t>(std::stoul(id)), bias);
            }
        } else if (key == "banned_tokens") {
            for (uint32_t token : value) realm_request_ban_token(r, token);
        } else if (key == "seed") {
            realm_request_set_seed(r, value);
        } else if (key == "max_tokens") {
            realm_request_set_max_tokens(r, value);
        } else if (key == "stop") {
            for (const std::string stop : value) TRY(outcome, realm_request_add_stop(r, stop.c_str(), &outcome.error));
        } else if (key == "json_schema") {
            TRY(outcome, realm_request_set_json_schema(r, value.dump().c_str(), &outcome.error));
        } else if (key == "json") {
            realm_request_set_json(r);
        } else if (key == "regex") {
            TRY(outcome, realm_request_set_regex(r, text.c_str(), &outcome.error));
        } else if (key == "lark") {
            TRY(outcome, realm_request_set_lark(r, text.c_str(), &outcome.error));
        } else if (key == "logprobs") {
            realm_request_set_logprobs(r, value);
        } else if (key == "ignore_eos") {
            realm_request_set_ignore_eos(r, value);
        } else if (key == "shared_prefix") {
            value == "system" ? realm_request_share_system(r) : realm_request_share_prefix(r, value.get<size_t>());
        } else if (key == "adapter") {
            realm_request_set_adapter(r, adapter_named(text), scale);
        } else if (key == "input") {
            TRY(outcome, realm_request_set_input(r, value.dump().c_str(), &outcome.error));
        } else if (key == "logits_processors") {
            for (const Json &processor : value) {
                TRY(outcome, realm_request_add_logits_processor(r, process_logits, new Json(processor), delete_json, &outcome.error));
            }
        } else if (key == "speculation") {
            realm_request_set_speculation(r, one_of<RealmSpeculation>(text, {"auto", "off", "lookup", "draft"}));
        } else {
            throw std::runtime_error("a request has no `" + key + "`");
        }
    }
    return request;
}

struct NumberLimit {
    const char *name;
    RealmLimit limit;
};

constexpr NumberLimit NUMBER_LIMITS[] = {
    {"max_concurrent", REALM_LIMIT_MAX_CONCURRENT},          {"max_queued", REALM_LIMIT_MAX_QUEUED},
    {"kv_tokens", REALM_LIMIT_KV_TOKENS},                    {"tokens_per_minute", REALM_LIMIT_TOKENS_PER_MINUTE},
    {"request_timeout_ms", REALM_LIMIT_REQUEST_TIMEOUT_MS},  {"program_memory", REALM_LIMIT_PROGRAM_MEMORY},
    {"program_cpu_time_ms", REALM_LIMIT_PROGRAM_CPU_TIME_MS}, {"program_handles", REALM_LIMIT_PROGRAM_HANDLES},
    {"program_output", REALM_LIMIT_PROGRAM_OUTPUT},          {"memory", REALM_LIMIT_MEMORY},
};

inline Owned<RealmLimits> limits_of(const Json &asked) {
    Outcome outcome;
    auto limits = own(realm_limits_new());
    for (auto &[key, value] : asked.items()) {
        bool known = false;
        for (auto [name, limit] : NUMBER_LIMITS) {
            if (key != name) continue;
            known = true;
            realm_limits_set(limits.get(), limit, value);
        }
        if (key == "weight") {
            realm_limits_set_weight(limits.get(), value);
        } else if (key == "models" || key == "adapters") {
            std::vector<std::string> texts = value;
            std::vector<const char *> names;
            for (const std::string &text : texts) names.push_back(text.c_str());
            auto which = key == "models" ? REALM_NAME_LIMIT_MODELS : REALM_NAME_LIMIT_ADAPTERS;
            TRY(outcome, realm_limits_set_names(limits.get(), which, names.data(), names.size(), &outcome.error));
        } else if (!known) {
            throw std::runtime_error("there is no limit `" + key + "`");
        }
    }
    return limits;
}

inline Json json_of(const RealmLimits *limits) {
    Json out = {{"weight", realm_limits_weight(limits)}};
    for (auto [name, limit] : NUMBER_LIMITS) {
        uint64_t value = realm_limits_get(limits, limit);
        out[name] = value == REALM_NONE ? Json() : Json(value);
    }
    for (auto [name, which] : {std::pair{"models", REALM_NAME_LIMIT_MODELS}, std::pair{"adapters", REALM_NAME_LIMIT_ADAPTERS}}) {
        uint64_t count = realm_limits_names(limits, which);
        out[name] = count == REALM_NONE ? Json() : Json::array();
        for (size_t i = 0; count != REALM_NONE && i < count; i++) out[name].push_back(realm_limits_name(limits, which, i));
    }
    return out;
}

inline Json json_of(float value) { return std::isnan(value) ? Json() : Json(value); }

inline Json json_of(const RealmTokenLogprob *top, size_t len) {
    Json out = Json::array();
    for (size_t i = 0; i < len; i++) out.push_back({{"id", top[i].id}, {"logprob", top[i].logprob}});
    return out;
}

inline Json json_of(const RealmToken &token) {
    return {{"id", token.id}, {"logprob", json_of(token.logprob)}, {"top", json_of(token.top, token.top_len)}};
}

inline Json usage_of(const RealmFinish &finish) {
    return {{"prompt_tokens", finish.prompt_tokens},
            {"cached_tokens", finish.cached_tokens},
            {"generated_tokens", finish.generated_tokens},
            {"reasoning_tokens", finish.reasoning_tokens},
            {"draft_tokens", finish.draft_tokens},
            {"accepted_tokens", finish.accepted_tokens}};
}

inline const char *name_of(RealmFinishReason reason) {
    if (reason == REALM_FINISH_REASON_TOOL_CALLS) return "tool_calls";
    return reason == REALM_FINISH_REASON_STOP ? "stop" : "length";
}

inline Json json_of(const RealmFunctionCall &call) {
    return {{"id", call.id}, {"name", call.name}, {"arguments", call.arguments}};
}

inline Json json_of(const RealmCompletion *completion) {
    RealmFinish finish;
    size_t len = 0;
    const char *text = realm_completion_text(completion, &len);
    Json tokens = Json::array();
    Json ids = Json::array();
    realm_completion_finish(completion, &finish);
    RealmToken token;
    for (size_t i = 0; realm_completion_token(completion, i, &token); i++) {
        tokens.push_back(json_of(token));
        ids.push_back(token.id);
    }
    size_t thought = 0;
    const char *reasoning = realm_completion_reasoning(completion, &thought);
    Json warnings = Json::array();
    for (size_t i = 0; const char *warning = realm_completion_warning(completion, i); i++) warnings.push_back(warning);
    Json calls = Json::array();
    RealmFunctionCall call;
    for (size_t i = 0; realm_completion_tool_call(completion, i, &call); i++) calls.push_back(json_of(call));
    return {{"text", std::string(text, len)},     {"ids", ids},
            {"tool_calls", calls},                {"warnings", warnings},
            {"reasoning", std::string(reasoning, thought)},
            {"tokens", tokens},                   {"finish_reason", name_of(finish.reason)},
            {"usage", usage_of(finish)},          {"decode_seconds", finish.decode_seconds}};
}

inline Json json_of(const RealmChunk *chunk) {
    RealmFinish finish;
    size_t len = 0;
    const char *text = realm_chunk_text(chunk, &len);
    Json tokens = Json::array();
    RealmToken token;
    for (size_t i = 0; realm_chunk_token(chunk, i, &token); i++) tokens.push_back(json_of(token));
    Json ended;
    if (realm_chunk_finish(chunk, &finish)) ended = {{"reason", name_of(finish.reason)}, {"usage", usage_of(finish)}};
    Json calls = Json::array();
    RealmFunctionCall call;
    for (size_t i = 0; realm_chunk_tool_call(chunk, i, &call); i++) calls.push_back(json_of(call));
    size_t thought = 0;
    const char *reasoning = realm_chunk_reasoning(chunk, &thought);
    Json warnings = Json::array();
    for (size_t i = 0; const char *warning = realm_chunk_warning(chunk, i); i++) warnings.push_back(warning);
    return {{"text", std::string(text, len)}, {"reasoning", std::string(reasoning, thought)},
            {"tokens", tokens}, {"tool_calls", calls}, {"warnings", warnings}, {"finish", ended}};
}

inline Json json_of(const RealmServed &served) {
    return {{"prompt_tokens", served.prompt_tokens}, {"cached_tokens", served.cached_tokens},
            {"generated_tokens", served.generated_tokens}, {"finished", served.finished},
            {"cancelled", served.cancelled}, {"timed_out", served.timed_out},
            {"refused", served.refused}, {"failed", served.failed},
            {"preemptions", served.preemptions}, {"running", served.running},
            {"waiting", served.waiting}, {"kv_pages", served.kv_pages},
            {"first_tokens", served.first_tokens}};
}
