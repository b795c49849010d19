// Performs the scenarios of tests/conformance with the C interface: `conformance FOLDER [AREA]`.

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <mutex>
#include <set>
#include <thread>
#include <variant>

#include "convert.hpp"

namespace fs = std::filesystem;

struct Log {
    std::mutex lock;
    Json lines = Json::array();
};

struct Bytes {
    Owned<uint8_t> data;
    size_t len = 0;
};

using Object = std::variant<Owned<RealmRuntime>, Owned<RealmModel>, Owned<RealmTokenizer>, Owned<RealmGeneration>,
                            Owned<RealmTenant>, Owned<RealmProgram>, Owned<RealmSequence>, Owned<RealmAdapter>, Owned<RealmChatSession>, Bytes,
                            std::shared_ptr<Log>>;

constexpr const char *LEVELS[] = {"error", "warn", "info", "debug", "trace"};

class Runner {
  public:
    explicit Runner(fs::path folder) : folder(std::move(folder)) {
        auto options = own(realm_load_options_new());
        realm_load_options_set_kv_tokens(options.get(), 4096);
        auto runtime = own(TRY(out, realm_runtime_new(2, "cpu", nullptr, &out.error)));
        objects["model"] = own(TRY(out, realm_runtime_load_model(runtime.get(), "smollm2-135m", options.get(), &out.error)));
        objects["realm"] = std::move(runtime);
    }

    // Frees what the last scenario left.
    void begin() {
        for (auto it = objects.begin(); it != objects.end();) {
            it = it->first == "model" || it->first == "realm" ? std::next(it) : objects.erase(it);
        }
        kept.clear();
    }

    std::optional<std::string> perform(const Json &step) {
        Json arguments = resolve(step, kept);
        auto until = std::chrono::steady_clock::now() + std::chrono::seconds(step.value("eventually", false) ? 10 : 0);
        for (;;) {
            auto why = check(step, arguments);
            if (!why || std::chrono::steady_clock::now() >= until) return why;
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
    }

  private:
    std::optional<std::string> check(const Json &step, const Json &a) {
        try {
            Json result = operate(a);
            if (a.contains("error")) return "an error was expected, not " + shortened(result);
            if (step.contains("as")) kept[step["as"]] = result;
            if (!step.contains("expect")) return std::nullopt;
            // Expectations may name what this very step gave.
            return mismatch(result, resolve(step["expect"], kept));
        } catch (const Failure &failure) {
            if (!a.contains("error")) return failure.code + ": " + failure.what();
            return mismatch({{"code", failure.code}, {"message", failure.what()}}, a["error"]);
        }
    }

    template <class T>
    T *get(const std::string &name) {
        auto found = objects.find(name);
        auto *object = found == objects.end() ? nullptr : std::get_if<Owned<T>>(&found->second);
        if (object == nullptr) throw std::runtime_error("there is no such object `" + name + "`");
        return object->get();
    }

    template <class T>
    T *get(const Json &a, const char *key) {
        return get<T>(a.at(key).get<std::string>());
    }

    RealmModel *model(const Json &a) { return get<RealmModel>(a.value("model", "model")); }
    RealmRuntime *realm() { return get<RealmRuntime>("realm"); }
    void add(const Json &a, Object object) { objects[a.value("as", "unnamed")] = std::move(object); }

    Owned<RealmRequest> request(const Json &a) {
        return request_of(a.at("request"), [&](const std::string &name) { return get<RealmAdapter>(name); });
    }

    // A file of the scenarios, if there is one of that name.
    std::string path(const Json &a, const char *key) {
        std::string name = a.at(key);
        return fs::exists(folder / name) || std::string(key) != "reference" ? (folder / name).string() : name;
    }

    Json operate(const Json &a);
    Json operate_on_models(const std::string &op, const Json &a);
    Json operate_on_texts(const std::string &op, const Json &a);
    Json operate_on_generations(const std::string &op, const Json &a);
    Json operate_on_lists(const std::string &op, const Json &a);
    Json operate_on_chats(const std::string &op, const Json &a);
    Json operate_on_sequences(const std::string &op, const Json &a);
    Json operate_on_tenants(const std::string &op, const Json &a);
    void set_grants(const Json &a);

    fs::path folder;
    std::map<std::string, Object> objects;
    Kept kept;
    Outcome out;
};

Json Runner::operate(const Json &a) {
    using Part = Json (Runner::*)(const std::string &, const Json &);
    static const std::vector<std::pair<std::set<std::string>, Part>> parts = {
        {{"realm", "pull", "models", "inspect", "load_model", "info", "load_adapter", "adapted", "metrics", "prometheus"},
         &Runner::operate_on_models},
        {{"tokenizer", "encode", "decode", "token_id", "render", "render_tokens", "score", "log_likelihood", "embed"},
         &Runner::operate_on_texts},
        {{"generate", "stream", "next", "collect", "finish", "cancel", "close"}, &Runner::operate_on_generations},
        {{"generate_many", "embed_many", "score_many", "encode_many"}, &Runner::operate_on_lists},
        {{"chat", "ask", "ask_stream", "chat_state", "set_messages", "undo", "clear"}, &Runner::operate_on_chats},
        {{"sequence", "append", "forward", "sequence_state", "fork", "truncate", "save", "restore"},
         &Runner::operate_on_sequences},
        {{"tenant", "tenant_model", "set_limits", "tenant_state", "tenant_metrics", "load_program", "compile_program",
          "set_program", "add_program", "remove_program", "set_grants", "log_lines"},
         &Runner::operate_on_tenants},
    };
    std::string op = a.at("op");
    for (auto &[names, part] : parts) {
        if (names.count(op) > 0) return (this->*part)(op, a);
    }
    throw std::runtime_error("there is no operation `" + op + "`");
}

Json Runner::operate_on_models(const std::string &op, const Json &a) {
    if (op == "realm") {
        std::string device = a.value("device", "");
        const char *named = device.empty() ? nullptr : device.c_str();
        size_t threads = a.value("threads", size_t{0});
        if (a.contains("snapshot_key")) {
            std::string key = a.at("snapshot_key");
            const auto *bytes = reinterpret_cast<const uint8_t *>(key.data());
            add(a, own(TRY(out, realm_runtime_new_keyed(threads, named, nullptr, bytes, key.size(), &out.error))));
        } else {
            add(a, own(TRY(out, realm_runtime_new(threads, named, nullptr, &out.error))));
        }
        return nullptr;
    }
    if (op == "pull") {
        auto file = own(TRY(out, realm_runtime_pull(realm(), a.at("reference").get<std::string>().c_str(), nullptr, nullptr, &out.error)));
        return file.get();
    }
    if (op == "models") {
        auto list = own(TRY(out, realm_runtime_models(realm(), &out.error)));
        constexpr const char *states[] = {"absent", "partial", "present"};
        Json models = Json::array();
        RealmModelEntry entry;
        for (size_t i = 0; realm_model_list_get(list.get(), i, &entry); i++) {
            models.push_back({{"reference", entry.reference}, {"state", states[entry.state]}});
        }
        return models;
    }
    if (op == "inspect") {
        auto info = own(TRY(out, realm_inspect(path(a, "path").c_str(), &out.error)));
        RealmFileSummary said;
        realm_file_info_summary(info.get(), &said);
        Json types = Json::array();
        RealmTensorType type;
        for (size_t i = 0; realm_file_info_tensor_type(info.get(), i, &type); i++) {
            types.push_back({{"name", type.name}, {"count", type.count}, {"bytes", type.bytes}});
        }
        return {{"name", said.name},
                {"architecture", said.architecture},
                {"parameters", said.parameters},
                {"layers", said.layers},
                {"vocabulary", said.vocabulary},
                {"trained_context_length", said.trained_context_length},
                {"chat_template", said.chat_template},
                {"tensor_types", types}};
    }
    if (op == "load_model") {
        auto options = own(realm_load_options_new());
        uint64_t said[2] = {0, 0};
        const Json asked = a.value("options", Json::object());
        for (auto &[key, value] : asked.items()) {
            std::string text = value.is_string() ? value.get<std::string>() : "";
            // generated by ci/api: load options
            if (key == "kv_tokens") {
                realm_load_options_set_kv_tokens(options.get(), value);
            } else if (key == "context_length") {
                realm_load_options_set_context_length(options.get(), value);
            } else if (key == "kv_memory") {
                realm_load_options_set_kv_memory(options.get(), value);
            } else if (key == "cache_type") {
                realm_load_options_set_cache_type(options.get(), one_of<RealmCacheType>(text, {"f32", "f16", "q8_0"}));
            } else if (key == "chat_template") {
                TRY(out, realm_load_options_set_chat_template(options.get(), text.c_str(), &out.error));
            } else if (key == "speculation") {
                realm_load_options_set_speculation(options.get(), one_of<RealmSpeculation>(text, {"auto", "off", "lookup", "draft"}));
            } else if (key == "draft_model") {
                TRY(out, realm_load_options_set_draft_model(options.get(), text.c_str(), &out.error));
            } else if (key == "max_queued") {
                realm_load_options_set_max_queued(options.get(), value);
            } else if (key == "gpu_layers") {
                realm_load_options_set_gpu_layers(options.get(), value);
            } else if (key == "experts_on_cpu") {
                realm_load_options_set_experts_on_cpu(options.get(), value);
            } else
            // end of load options
            {
                throw std::runtime_error("a load has no `" + key + "`");
            }
        }
        RealmOnProgress on_progress = [](void *data, const char *stage, const char *, uint64_t done, uint64_t total) REALM_NOEXCEPT {
            auto *said = static_cast<uint64_t *>(data);
            if (std::string(stage) == "loading") said[0] = done, said[1] = total;
        };
        realm_load_options_set_progress(options.get(), on_progress, said, nullptr);
        add(a, own(TRY(out, realm_runtime_load_model(get<RealmRuntime>(a.value("realm", "realm")), path(a, "reference").c_str(), options.get(), &out.error))));
        return {{"done", said[0]}, {"total", said[1]}};
    }
    if (op == "info") {
        RealmModelInfo info;
        realm_model_info(model(a), &info);
        constexpr const char *poolings[] = {"default", "mean", "last", "cls"};
        return {{"reference", info.reference}, {"name", info.name},
                {"architecture", info.architecture}, {"device", info.device},
                {"parameters", info.parameters}, {"file_bytes", info.file_bytes},
                {"vocabulary", info.vocabulary}, {"layers", info.layers},
                {"context_length", info.context_length}, {"trained_context_length", info.trained_context_length},
                {"hidden", info.hidden}, {"pooling", poolings[info.pooling]},
                {"chat_template", info.chat_template}};
    }
    if (op == "load_adapter") {
        auto adapter = own(TRY(out, realm_model_load_adapter(model(a), path(a, "path").c_str(), &out.error)));
        Json said = {{"rank", realm_adapter_rank(adapter.get())},
                     {"bytes", realm_adapter_bytes(adapter.get())},
                     {"name", realm_adapter_name(adapter.get())}};
        add(a, std::move(adapter));
        return said;
    }
    if (op == "adapted") {
        add(a, own(realm_model_adapted(model(a), get<RealmAdapter>(a, "adapter"), a.value("scale", 1.0F))));
        return nullptr;
    }
    if (op == "metrics") {
        auto metrics = own(realm_model_metrics(model(a)));
        RealmServed served;
        RealmKvPages kv;
        realm_metrics_served(metrics.get(), &served);
        realm_metrics_kv(metrics.get(), &kv);
        Json said = {{"served", json_of(served)},
                     {"steps", realm_metrics_steps(metrics.get())},
                     {"kv", {
                         // generated by ci/api: pages
                         {"total", kv.total},
                         {"used", kv.used},
                         {"remembered", kv.remembered},
                         {"free", kv.free},
                         {"page_bytes", kv.page_bytes},
                         // end of pages
                     }},
                     {"tenants", Json::array()}};
        for (size_t i = 0; const char *name = realm_metrics_tenant(metrics.get(), i, &served); i++) {
            said["tenants"].push_back({{"name", name}, {"served", json_of(served)}});
        }
        return said;
    }
    return own(realm_runtime_prometheus(realm())).get();
}

Json Runner::operate_on_texts(const std::string &op, const Json &a) {
    size_t len = 0;
    std::string text = a.value("text", "");
    std::vector<uint32_t> tokens = a.value("tokens", std::vector<uint32_t>());
    auto ids = [&](Owned<uint32_t> encoded) { return Json(std::vector<uint32_t>(encoded.get(), encoded.get() + len)); };
    auto numbers = [](Owned<float> values, size_t count) { return Json(std::vector<float>(values.get(), values.get() + count)); };
    if (op == "tokenizer") {
        auto tokenizer = own(TRY(out, realm_runtime_load_tokenizer(realm(), a.at("reference").get<std::string>().c_str(), &out.error)));
        RealmTokenizerInfo info;
        realm_tokenizer_info(tokenizer.get(), &info);
        std::vector<uint32_t> ends(info.end_tokens, info.end_tokens + info.end_tokens_len);
        add(a, std::move(tokenizer));
        return {{"vocabulary", info.vocabulary}, {"bos", info.bos}, {"eos", info.eos}, {"adds_bos", info.adds_bos}, {"end_tokens", ends}};
    }
    if (op == "encode") {
        bool special = a.value("special", false);
        bool boundaries = a.value("boundaries", true);
        if (a.contains("tokenizer")) {
            return ids(own(TRY(out, realm_tokenizer_encode(get<RealmTokenizer>(a, "tokenizer"), text.c_str(), special, boundaries, &len, &out.error))));
        }
        return ids(own(TRY(out, realm_model_encode(model(a), text.c_str(), special, boundaries, &len, &out.error))));
    }
    if (op == "decode") {
        auto decoded = own(TRY(out, realm_model_decode(model(a), tokens.data(), tokens.size(), &len, &out.error)));
        return std::string(decoded.get(), len);
    }
    if (op == "token_id") {
        auto tokenizer = own(realm_model_tokenizer(model(a)));
        uint32_t id = realm_tokenizer_token_id(tokenizer.get(), text.c_str());
        return id == UINT32_MAX ? Json() : Json(id);
    }
    if (op == "render") {
        auto asked = request(a);
        return own(TRY(out, realm_model_render(model(a), asked.get(), &out.error))).get();
    }
    if (op == "render_tokens") {
        auto asked = request(a);
        return ids(own(TRY(out, realm_model_render_tokens(model(a), asked.get(), &len, &out.error))));
    }
    if (op == "score") {
        auto scores = own(TRY(out, realm_model_score(model(a), tokens.data(), tokens.size(), a.value("top", size_t{0}), &out.error)));
        Json said = Json::array();
        RealmScore score;
        for (size_t i = 0; realm_scores_get(scores.get(), i, &score); i++) {
            said.push_back({{"next", json_of(score.next)}, {"top", json_of(score.top, score.top_len)}});
        }
        return said;
    }
    if (op == "log_likelihood") {
        std::vector<uint32_t> prompt = a.at("prompt");
        std::vector<uint32_t> next = a.at("continuation");
        auto said = own(TRY(out, realm_model_log_likelihood(model(a), prompt.data(), prompt.size(), next.data(), next.size(), &out.error)));
        return numbers(std::move(said), next.size());
    }
    if (a.contains("text")) {
        auto vector = own(TRY(out, realm_model_embed(model(a), text.c_str(), &len, &out.error)));
        return numbers(std::move(vector), len);
    }
    const std::map<std::string, RealmPooling> poolings = {
        {"", REALM_POOLING_DEFAULT}, {"mean", REALM_POOLING_MEAN}, {"last", REALM_POOLING_LAST}, {"cls", REALM_POOLING_CLS}};
    auto vector = own(TRY(out, realm_model_embed_tokens(model(a), tokens.data(), tokens.size(), poolings.at(a.value("pooling", "")),
                                                        a.value("normalize", true), &len, &out.error)));
    return numbers(std::move(vector), len);
}

Json Runner::operate_on_generations(const std::string &op, const Json &a) {
    if (op == "generate") {
        auto asked = request(a);
        return json_of(own(TRY(out, realm_model_generate(model(a), asked.get(), &out.error))).get());
    }
    if (op == "stream") {
        auto asked = request(a);
        add(a, own(TRY(out, realm_model_stream(model(a), asked.get(), &out.error))));
        return nullptr;
    }
    if (op == "close") {
        if (objects.erase(a.at("object")) == 0) throw std::runtime_error("there is no such object");
        return nullptr;
    }
    auto *generation = get<RealmGeneration>(a, "generation");
    auto next = [&] {
        RealmChunk *chunk = nullptr;
        TRY(out, realm_generation_next(generation, &chunk, &out.error));
        return own(chunk);
    };
    if (op == "next") {
        auto chunk = next();
        return chunk ? json_of(chunk.get()) : Json();
    }
    if (op == "collect") {
        Json chunks = Json::array();
        std::string text;
        while (auto chunk = next()) {
            chunks.push_back(json_of(chunk.get()));
            text += chunks.back()["text"];
        }
        return {{"text", text}, {"chunks", chunks}, {"count", chunks.size()}};
    }
    if (op == "finish") return json_of(own(TRY(out, realm_generation_finish(generation, &out.error))).get());
    realm_generation_cancel(generation);
    return nullptr;
}

Json Runner::operate_on_lists(const std::string &op, const Json &a) {
    Json said = Json::array();
    if (op == "generate_many") {
        std::vector<Owned<RealmRequest>> requests;
        std::vector<const RealmRequest *> asked;
        for (const Json &prompt : a.at("prompts")) {
            Json one = a.value("options", Json::object());
            bool messages = prompt.is_array() && !prompt.empty() && prompt[0].is_object();
            one[prompt.is_string() ? "prompt" : messages ? "messages" : "tokens"] = prompt;
            requests.push_back(request_of(one, [&](const std::string &name) { return get<RealmAdapter>(name); }));
            asked.push_back(requests.back().get());
        }
        std::vector<RealmCompletion *> completions(asked.size());
        std::vector<RealmError *> errors(asked.size());
        bool each = a.value("each", false);
        TRY(out, realm_model_generate_many(model(a), asked.data(), asked.size(), completions.data(), each ? errors.data() : nullptr, &out.error));
        for (size_t i = 0; i < asked.size(); i++) {
            auto completion = own(completions[i]);
            auto error = own(errors[i]);
            said.push_back(error ? Json{{"error", {{"code", realm_error_name(error.get())}, {"message", realm_error_message(error.get())}}}}
                                 : json_of(completion.get()));
        }
        return said;
    }
    if (op == "score_many") {
        std::vector<std::vector<uint32_t>> texts = a.at("texts");
        std::vector<const uint32_t *> tokens;
        std::vector<size_t> lens;
        for (auto &text : texts) tokens.push_back(text.data()), lens.push_back(text.size());
        std::vector<RealmScores *> scores(texts.size());
        TRY(out, realm_model_score_many(model(a), tokens.data(), lens.data(), lens.size(), a.value("top", size_t{0}), scores.data(), &out.error));
        for (RealmScores *found : scores) {
            auto owned = own(found);
            said.push_back(Json::array());
            RealmScore score;
            for (size_t i = 0; realm_scores_get(found, i, &score); i++) {
                said.back().push_back({{"next", json_of(score.next)}, {"top", json_of(score.top, score.top_len)}});
            }
        }
        return said;
    }
    std::vector<std::string> texts = a.at("texts");
    std::vector<const char *> names;
    for (const std::string &text : texts) names.push_back(text.c_str());
    if (op == "encode_many") {
        std::vector<size_t> lens(names.size());
        auto ids = own(TRY(out, realm_model_encode_many(model(a), names.data(), names.size(), a.value("special", false), a.value("boundaries", true), lens.data(), &out.error)));
        const uint32_t *next = ids.get();
        for (size_t len : lens) {
            said.push_back(std::vector<uint32_t>(next, next + len));
            next += len;
        }
        return said;
    }
    size_t width = 0;
    auto vectors = own(TRY(out, realm_model_embed_many(model(a), names.data(), names.size(), REALM_POOLING_DEFAULT, a.value("normalize", true), &width, &out.error)));
    for (size_t i = 0; i < names.size(); i++) {
        const float *first = vectors.get() + i * width;
        said.push_back(std::vector<float>(first, first + width));
    }
    return said;
}

Json Runner::operate_on_chats(const std::string &op, const Json &a) {
    std::string text = a.value("text", "");
    if (op == "chat") {
        auto asked = request_of(a.value("options", Json::object()), [&](const std::string &name) { return get<RealmAdapter>(name); });
        if (a.contains("system")) {
            TRY(out, realm_request_add_message(asked.get(), "system", a["system"].get_ref<const std::string &>().c_str(), &out.error));
        }
        auto options = own(realm_chat_options_new());
        for (const Json &tool : a.value("tools", Json::array())) {
            TRY(out, realm_chat_options_add_tool(options.get(), tool.at("definition").dump().c_str(), run_tool, new Json(tool), delete_json, &out.error));
        }
        if (a.contains("max_rounds")) realm_chat_options_set_max_rounds(options.get(), a["max_rounds"]);
        if (a.contains("overflow")) {
            realm_chat_options_set_overflow(options.get(), a["overflow"] == "refuse" ? REALM_OVERFLOW_REFUSE : REALM_OVERFLOW_DROP_OLDEST);
        }
        add(a, own(TRY(out, realm_chat_new(model(a), asked.get(), options.get(), &out.error))));
        return nullptr;
    }
    auto *chat = get<RealmChatSession>(a, "chat");
    if (op == "ask") return json_of(own(TRY(out, realm_chat_ask(chat, text.c_str(), &out.error))).get());
    if (op == "ask_stream") {
        add(a, own(TRY(out, realm_chat_stream(chat, text.c_str(), &out.error))));
    } else if (op == "chat_state") {
        auto messages = own(TRY(out, realm_chat_messages(chat, &out.error)));
        return {{"messages", Json::parse(messages.get())}, {"dropped_messages", realm_chat_dropped_messages(chat)}, {"busy", realm_chat_is_busy(chat)}};
    } else if (op == "set_messages") {
        TRY(out, realm_chat_set_messages(chat, a.at("messages").dump().c_str(), &out.error));
    } else if (op == "undo") {
        bool undone = false;
        TRY(out, realm_chat_undo(chat, &undone, &out.error));
        return undone;
    } else {
        TRY(out, realm_chat_clear(chat, &out.error));
    }
    return nullptr;
}

Json Runner::operate_on_sequences(const std::string &op, const Json &a) {
    if (op == "sequence") {
        add(a, own(TRY(out, realm_model_sequence(model(a), &out.error))));
        return nullptr;
    }
    if (op == "restore") {
        std::string junk = a.value("junk", "");
        const auto *data = reinterpret_cast<const uint8_t *>(junk.data());
        size_t len = junk.size();
        if (a.contains("bytes")) {
            auto &bytes = std::get<Bytes>(objects.at(a["bytes"]));
            data = bytes.data.get();
            len = bytes.len;
        }
        auto *restore = a.value("foreign", false) ? realm_model_restore_foreign_sequence : realm_model_restore_sequence;
        add(a, own(TRY(out, restore(model(a), data, len, &out.error))));
        return nullptr;
    }
    auto *sequence = get<RealmSequence>(a, "sequence");
    if (op == "append") {
        std::vector<uint32_t> tokens = a.at("tokens");
        TRY(out, realm_sequence_append(sequence, tokens.data(), tokens.size(), &out.error));
        return nullptr;
    }
    if (op == "forward") {
        const std::map<std::string, RealmOutput> outputs = {{"nothing", REALM_OUTPUT_NOTHING},
                                                            {"last_logits", REALM_OUTPUT_LAST_LOGITS},
                                                            {"logits", REALM_OUTPUT_LOGITS},
                                                            {"hidden", REALM_OUTPUT_HIDDEN}};
        auto forwarded = own(TRY(out, realm_sequence_forward(sequence, outputs.at(a.value("output", "last_logits")), &out.error)));
        size_t rows = 0;
        size_t width = 0;
        const float *values = realm_forwarded_values(forwarded.get(), &rows, &width);
        Json argmax = Json::array();
        for (size_t row = 0; row < rows; row++) {
            const float *first = values + row * width;
            argmax.push_back(std::max_element(first, first + width) - first);
        }
        return {{"rows", rows}, {"width", width}, {"cached", realm_forwarded_cached(forwarded.get())}, {"argmax", argmax},
                {"values", std::vector<float>(values, values + rows * width)}};
    }
    if (op == "sequence_state") {
        size_t len = 0;
        const uint32_t *tokens = realm_sequence_tokens(sequence, &len);
        return {{"tokens", std::vector<uint32_t>(tokens, tokens + len)}, {"len", len},
                {"context_length", realm_sequence_context_length(sequence)}};
    }
    if (op == "fork") {
        add(a, own(TRY(out, realm_sequence_fork(sequence, &out.error))));
        return nullptr;
    }
    if (op == "truncate") {
        TRY(out, realm_sequence_truncate(sequence, a.at("len"), &out.error));
        return nullptr;
    }
    size_t len = 0;
    Owned<uint8_t> saved(TRY(out, realm_sequence_save(sequence, &len, &out.error)));
    add(a, Bytes{std::move(saved), len});
    return len;
}

Json Runner::operate_on_tenants(const std::string &op, const Json &a) {
    std::string name = a.value("name", "");
    if (op == "tenant") {
        auto limits = limits_of(a.value("limits", Json::object()));
        add(a, own(TRY(out, realm_runtime_tenant(realm(), name.c_str(), limits.get(), &out.error))));
        return nullptr;
    }
    if (op == "load_program" || op == "compile_program") {
        std::string file = path(a, "file");
        Owned<RealmProgram> program;
        if (op == "load_program") {
            program = own(TRY(out, realm_runtime_load_program(realm(), file.c_str(), &out.error)));
        } else {
            std::ifstream stream(file, std::ios::binary);
            std::vector<char> wasm((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
            const auto *bytes = reinterpret_cast<const uint8_t *>(wasm.data());
            auto *tenant = a.contains("tenant") ? get<RealmTenant>(a, "tenant") : nullptr;
            program = own(TRY(out, tenant ? realm_tenant_compile_program(tenant, bytes, wasm.size(), &out.error)
                                          : realm_runtime_compile_program(realm(), bytes, wasm.size(), &out.error)));
        }
        RealmProgramInfo info;
        realm_program_info(program.get(), &info);
        constexpr const char *contracts[] = {"program", "policy", "module"};
        Json said = {{"contract", contracts[info.contract]}, {"bytes", info.bytes}, {"imports", Json::array()}, {"exports", Json::array()}};
        for (size_t i = 0; i < info.imports; i++) said["imports"].push_back(realm_program_import(program.get(), i));
        for (size_t i = 0; i < info.exports; i++) said["exports"].push_back(realm_program_export(program.get(), i));
        add(a, std::move(program));
        return said;
    }
    if (op == "log_lines") {
        auto &log = std::get<std::shared_ptr<Log>>(objects.at(a.at("log")));
        // Lines come on a thread of their own, some time after the program wrote them.
        for (int i = 0;; i++) {
            std::unique_lock<std::mutex> guard(log->lock);
            if (!log->lines.empty() || i == 100) return log->lines;
            guard.unlock();
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
    }
    auto *tenant = get<RealmTenant>(a, "tenant");
    if (op == "tenant_model") {
        add(a, own(TRY(out, realm_tenant_model(tenant, model(a), &out.error))));
    } else if (op == "set_limits") {
        TRY(out, realm_tenant_set_limits(tenant, limits_of(a.at("limits")).get(), &out.error));
    } else if (op == "tenant_state") {
        return {{"name", realm_tenant_name(tenant)},
                {"running", realm_tenant_running(tenant)},
                {"waiting", realm_tenant_waiting(tenant)},
                {"has_program", realm_tenant_has_program(tenant)},
                {"limits", json_of(own(realm_tenant_limits(tenant)).get())}};
    } else if (op == "tenant_metrics") {
        RealmServed served;
        realm_tenant_metrics(tenant, &served);
        return json_of(served);
    } else if (op == "set_program") {
        realm_tenant_set_program(tenant, a.at("program").is_null() ? nullptr : get<RealmProgram>(a, "program"));
    } else if (op == "add_program") {
        TRY(out, realm_tenant_add_program(tenant, name.c_str(), get<RealmProgram>(a, "program"), &out.error));
    } else if (op == "remove_program") {
        return realm_tenant_remove_program(tenant, name.c_str());
    } else {
        set_grants(a);
    }
    return nullptr;
}

void Runner::set_grants(const Json &a) {
    auto log = std::make_shared<Log>();
    auto grants = own(realm_grants_new());
    if (a.value("log", false)) {
        RealmOnLog on_log = [](void *data, RealmLevel level, const char *tenant, const char *message) REALM_NOEXCEPT {
            Log &log = **static_cast<std::shared_ptr<Log> *>(data);
            std::lock_guard<std::mutex> guard(log.lock);
            log.lines.push_back({{"tenant", tenant}, {"level", LEVELS[level]}, {"message", message}});
        };
        RealmDrop drop = [](void *data) REALM_NOEXCEPT { delete static_cast<std::shared_ptr<Log> *>(data); };
        realm_grants_allow_log_to(grants.get(), on_log, new std::shared_ptr<Log>(log), drop);
    }
    if (a.value("clock", false)) realm_grants_allow_clock(grants.get());
    if (a.contains("random")) {
        a["random"].is_number() ? realm_grants_allow_random_seed(grants.get(), a["random"]) : realm_grants_allow_random(grants.get());
    }
    if (a.contains("store")) TRY(out, realm_grants_allow_store(grants.get(), nullptr, a["store"], &out.error));
    for (const std::string host : a.value("http", Json::array())) {
        TRY(out, realm_grants_allow_http(grants.get(), host.c_str(), &out.error));
    }
    const Json tools = a.value("tools", Json::object());
    for (auto &[name, tool] : tools.items()) {
        TRY(out, realm_grants_allow_tool(grants.get(), name.c_str(), run_tool, new Json(tool), delete_json, &out.error));
    }
    realm_tenant_set_grants(get<RealmTenant>(a, "tenant"), grants.get());
    add(a, std::move(log));
}

int main(int argc, char **argv) {
    if (argc < 2) return std::cerr << "usage: conformance FOLDER [AREA]\n", 2;
    std::vector<fs::path> files;
    for (const auto &entry : fs::directory_iterator(argv[1])) {
        bool wanted = argc < 3 || entry.path().stem() == argv[2];
        if (entry.path().extension() == ".json" && wanted) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    int done = 0;
    int failed = 0;
    for (const fs::path &file : files) {
        std::ifstream stream(file);
        const Json scenarios = Json::parse(stream)["scenarios"];
        Runner runner(argv[1]);
        for (const Json &scenario : scenarios) {
            runner.begin();
            done++;
            for (size_t i = 0; i < scenario["steps"].size(); i++) {
                std::optional<std::string> why;
                try {
                    why = runner.perform(scenario["steps"][i]);
                } catch (const std::exception &error) {
                    why = error.what();
                }
                if (!why) continue;
                failed++;
                std::cerr << file.stem().string() << ": " << scenario["name"] << ", step " << i << " ("
                          << scenario["steps"][i]["op"] << ")" << *why << "\n";
                break;
            }
        }
    }
    std::cout << done << " scenarios, " << failed << " failed\n";
    return failed > 0 || done == 0;
}
