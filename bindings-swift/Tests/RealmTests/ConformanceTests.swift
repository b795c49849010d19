//  Performs the scenarios of tests/conformance, whose folder `REALM_CONFORMANCE` names.

import Foundation
import Realm
import XCTest

/// What programs wrote, from any thread.
final class Lines: @unchecked Sendable {
    private let lock = NSLock()
    private var lines: [Json] = []

    func add(_ line: Json) { lock.withLock { lines.append(line) } }
    var all: Json { lock.withLock { .list(lines) } }
}

final class ConformanceTests: XCTestCase {
    func testEveryScenario() async throws {
        let folder = try XCTUnwrap(ProcessInfo.processInfo.environment["REALM_CONFORMANCE"])
        let files = try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".json") }.sorted()
        XCTAssertFalse(files.isEmpty)
        var done = 0
        for file in files {
            let runner = try await Runner(folder: folder)
            let data = try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(file)"))
            for scenario in try JSONDecoder().decode(Json.self, from: data)["scenarios"]?.list ?? [] {
                runner.begin()
                done += 1
                for (i, step) in (scenario["steps"]?.list ?? []).enumerated() {
                    if let why = await runner.perform(step) {
                        XCTFail("\(file): \(scenario["name"]!.text!), step \(i) (\(step["op"]!.text!))\(why)")
                        break
                    }
                }
            }
        }
        print("\(done) scenarios")
    }
}

final class Runner {
    private let folder: String
    private let realm: Realm
    private let model: Model
    private var objects: [String: Any] = [:]
    private var kept: [String: Json] = [:]

    init(folder: String) async throws {
        self.folder = folder
        realm = try Realm(threads: 2, device: "cpu")
        model = try await realm.loadModel("smollm2-135m", options: LoadOptions(kvTokens: 4096))
    }

    func begin() {
        objects = ["model": model]
        kept = [:]
    }

    func perform(_ step: Json) async -> String? {
        let patience: TimeInterval = step["eventually"]?.isTrue == true ? 10 : 0
        let until = Date().addingTimeInterval(patience)
        while true {
            let why: String?
            do {
                why = try await check(step, try resolve(step, kept))
            } catch {
                why = ": \(error)"
            }
            if why == nil || Date() >= until { return why }
            try? await Task.sleep(nanoseconds: 10_000_000)
        }
    }

    private func check(_ step: Json, _ a: Json) async throws -> String? {
        do {
            let result = try await operate(a)
            if a["error"] != nil { return ": an error was expected, not \(result.source.prefix(400))" }
            if let name = step["as"]?.text { kept[name] = result }
            guard let expected = step["expect"] else { return nil }
            // Expectations may name what this very step gave.
            return mismatch(result, try resolve(expected, kept))
        } catch let error as RealmError {
            guard let wanted = a["error"] else { return ": \(error)" }
            return mismatch(.object(["code": .text(error.code), "message": .text(error.message)]), wanted)
        }
    }

    private func get<T>(_ a: Json, _ key: String) throws -> T {
        let name = a[key]?.text ?? key
        guard let object = objects[name] as? T else { throw Complaint(description: "there is no \(T.self) `\(name)`") }
        return object
    }

    private func add(_ a: Json, _ object: Any) -> Json {
        objects[a["as"]?.text ?? "unnamed"] = object
        return nil
    }

    private func text(_ a: Json, _ key: String) throws -> String {
        guard let text = a[key]?.text else { throw Complaint(description: "`\(key)` is missing") }
        return text
    }

    private func path(_ a: Json, _ key: String) throws -> String {
        let name = try text(a, key)
        if name.hasPrefix("/") { return name }
        return "\(folder)/\(name)"
    }

    private func request(_ a: Json) throws -> Request {
        try requestOf(a["request"]!) { name in try get(["name": .text(name)], "name") }
    }

    private func get<T>(_ a: [String: Json], _ key: String) throws -> T { try get(.object(a), key) }

    // Each case converts, calls, and converts.
    private func operate(_ a: Json) async throws -> Json {
        switch try text(a, "op") {
        case "realm":
            let key = a["snapshot_key"]?.text.map { Data($0.utf8) }
            return add(
                a, try Realm(threads: a["threads"]?.count, device: a["device"]?.text ?? "auto", snapshotKey: key))
        case "pull": return .text(try await realm.pull(try text(a, "reference")))
        case "models":
            return .list(try realm.models().map { entry in
                let state: Json
                switch entry.state {
                case .absent: state = "absent"
                case .partial: state = "partial"
                case .present: state = "present"
                }
                return .object(["reference": .text(entry.reference), "state": state])
            })
        case "inspect":
            let info = try inspect(path: try path(a, "path"))
            return .object([
                "name": Json(info.name), "architecture": .text(info.architecture), "parameters": Json(info.parameters),
                "layers": Json(info.layers), "vocabulary": Json(info.vocabulary),
                "trained_context_length": Json(info.trainedContextLength), "chat_template": .bool(info.chatTemplate),
                "tensor_types": .list(info.tensorTypes.map {
                    .object(["name": .text($0.name), "count": Json($0.count), "bytes": Json($0.bytes)])
                }),
            ])
        case "load_model": return try await load(a)
        case "info":
            let info = try (get(a, "model") as Model).info()
            return .object([
                "reference": .text(info.reference), "name": Json(info.name), "architecture": .text(info.architecture),
                "parameters": Json(info.parameters), "file_bytes": Json(info.fileBytes),
                "vocabulary": Json(info.vocabulary), "layers": Json(info.layers),
                "context_length": Json(info.contextLength), "trained_context_length": Json(info.trainedContextLength),
                "hidden": Json(info.hidden), "pooling": .text("\(info.pooling)"),
                "chat_template": .bool(info.chatTemplate), "device": .text(info.device),
            ])
        case "tokenizer":
            let tokenizer = try await realm.loadTokenizer(model: try text(a, "reference"))
            let info = tokenizer.info()
            _ = add(a, tokenizer)
            return .object([
                "vocabulary": Json(info.vocabulary), "bos": Json(info.bos), "eos": Json(info.eos),
                "adds_bos": .bool(info.addsBos), "end_tokens": Json(info.endTokens),
            ])
        case "encode":
            let (text, special) = (try text(a, "text"), a["special"]?.isTrue ?? false)
            let boundaries = a["boundaries"] != .bool(false)
            if a["tokenizer"] != nil {
                return Json(try (get(a, "tokenizer") as Tokenizer).encode(text: text, special: special, boundaries: boundaries))
            }
            return Json(try (get(a, "model") as Model).encode(text: text, special: special, boundaries: boundaries))
        case "decode": return .text(try (get(a, "model") as Model).decode(a["tokens"]!.ids))
        case "token_id": return Json(try (get(a, "model") as Model).tokenizer().tokenId(text: try text(a, "text")))
        case "render": return .text(try (get(a, "model") as Model).render(request: try request(a)))
        case "render_tokens": return Json(try (get(a, "model") as Model).renderTokens(request: try request(a)))
        case "generate": return json(try await (get(a, "model") as Model).generate(try request(a)))
        case "stream": return add(a, try (get(a, "model") as Model).start(request: try request(a)))
        case "next": return try await (get(a, "generation") as Generation).nextChunk().map { json($0) } ?? nil
        case "collect":
            let generation: Generation = try get(a, "generation")
            var chunks: [Json] = []
            while let chunk = try await generation.nextChunk() { chunks.append(json(chunk)) }
            return .object([
                "text": .text(chunks.compactMap { $0["text"]?.text }.joined()), "chunks": .list(chunks),
                "count": Json(UInt64(chunks.count)),
            ])
        case "finish": return json(try await (get(a, "generation") as Generation).complete())
        case "cancel":
            try (get(a, "generation") as Generation).cancel()
            return nil
        case "close":
            let name = try text(a, "object")
            guard objects.removeValue(forKey: name) != nil else { throw Complaint(description: "no `\(name)`") }
            return nil
        case "score":
            let scores = try await (get(a, "model") as Model).score(tokens: a["tokens"]!.ids, top: a["top"]?.count ?? 0)
            return .list(scores.map { .object(["next": Json($0.next), "top": json($0.top)]) })
        case "log_likelihood":
            let model: Model = try get(a, "model")
            return Json(try await model.logLikelihood(prompt: a["prompt"]!.ids, continuation: a["continuation"]!.ids))
        case "embed":
            let model: Model = try get(a, "model")
            if let text = a["text"]?.text { return Json(try await model.embed(text)) }
            let poolings: [String: Pooling] = ["mean": .mean, "last": .last, "cls": .cls]
            return Json(try await model.embedTokens(
                tokens: a["tokens"]!.ids, pooling: a["pooling"]?.text.flatMap { poolings[$0] },
                normalize: a["normalize"] != .bool(false)))
        case "sequence": return add(a, try (get(a, "model") as Model).sequence())
        case "append":
            try (get(a, "sequence") as TokenSequence).append(tokens: a["tokens"]!.ids)
            return nil
        case "forward":
            let outputs: [String: Output] = ["nothing": .nothing, "last_logits": .lastLogits, "logits": .logits, "hidden": .hidden]
            let output = a["output"]?.text.flatMap { outputs[$0] }
            let forwarded = try await (get(a, "sequence") as TokenSequence).forward(output: output)
            let (values, width) = (forwarded.values, Int(forwarded.width))
            let argmax = (0..<Int(forwarded.rows)).map { row in
                values[row * width..<(row + 1) * width].enumerated().max { $0.element < $1.element }!.offset
            }
            return .object([
                "rows": Json(forwarded.rows), "width": Json(forwarded.width), "cached": Json(forwarded.cached),
                "argmax": Json(argmax.map { UInt32($0) }), "values": Json(values),
            ])
        case "sequence_state":
            let sequence: TokenSequence = try get(a, "sequence")
            let tokens = try sequence.tokens()
            return .object([
                "tokens": Json(tokens), "len": Json(UInt64(tokens.count)), "context_length": Json(try sequence.contextLength()),
            ])
        case "fork": return add(a, try (get(a, "sequence") as TokenSequence).fork())
        case "truncate":
            try (get(a, "sequence") as TokenSequence).truncate(length: a["len"]!.count!)
            return nil
        case "save":
            let bytes = try await (get(a, "sequence") as TokenSequence).save()
            _ = add(a, bytes)
            return Json(UInt64(bytes.count))
        case "restore":
            let bytes: Data = a["bytes"] != nil ? try get(a, "bytes") : Data(try text(a, "junk").utf8)
            let model: Model = try get(a, "model")
            if a["foreign"] == .bool(true) { return add(a, try await model.restoreForeignSequence(bytes: bytes)) }
            return add(a, try await model.restoreSequence(bytes: bytes))
        case "load_adapter":
            let adapter = try await (get(a, "model") as Model).loadAdapter(path: try path(a, "path"))
            _ = add(a, adapter)
            return .object(["rank": Json(adapter.rank()), "bytes": Json(adapter.bytes()), "name": .text(adapter.name())])
        case "adapted":
            let scale = Float(a["scale"]?.double ?? 1)
            return add(a, try (get(a, "model") as Model).adapted(adapter: try get(a, "adapter"), scale: scale))
        case "metrics":
            let metrics = try (get(a, "model") as Model).metrics()
            let kv = metrics.kv
            return .object([
                "served": json(metrics.served), "steps": Json(metrics.stepSeconds.count),
                "kv": .object([
                    // generated by ci/api: pages
                    "total": Json(kv.total),
                    "used": Json(kv.used),
                    "remembered": Json(kv.remembered),
                    "free": Json(kv.free),
                    "page_bytes": Json(kv.pageBytes),
                    // end of pages
                ]),
                "tenants": .list(metrics.tenants.map { .object(["name": .text($0.name), "served": json($0.served)]) }),
            ])
        case "prometheus": return .text(realm.prometheus())
        case "generate_many", "embed_many", "score_many", "encode_many": return try await operateOnLists(a)
        case "chat", "ask", "ask_stream", "chat_state", "set_messages", "undo", "clear": return try await operateOnChats(a)
        default: return try await operateOnTenants(a)
        }
    }

    private func operateOnLists(_ a: Json) async throws -> Json {
        let model: Model = try get(a, "model")
        switch try text(a, "op") {
        case "generate_many":
            let requests = try a["prompts"]!.list!.map { prompt in
                var options = a["options"]?.object ?? [:]
                let isChat = prompt.list?.first?.object != nil
                options[prompt.text != nil ? "prompt" : isChat ? "messages" : "tokens"] = prompt
                return try requestOf(.object(options)) { name in try get(["name": .text(name)], "name") }
            }
            guard a["each"]?.isTrue == true else {
                return .list(try await model.generateMany(requests: requests).map { json($0) })
            }
            return .list(try await model.generateEach(requests: requests).map { outcome in
                outcome.completion.map { json($0) }
                    ?? .object(["error": .object(["code": Json(outcome.code), "message": Json(outcome.message)])])
            })
        case "embed_many": return .list(try await model.embedMany(texts: a["texts"]!.texts).map { Json($0) })
        case "score_many":
            let scores = try await model.scoreMany(texts: a["texts"]!.list!.map(\.ids), top: a["top"]?.count ?? 0)
            return .list(scores.map { .list($0.map { .object(["next": Json($0.next), "top": json($0.top)]) }) })
        default: return .list(model.encodeMany(texts: a["texts"]!.texts).map { Json($0) })
        }
    }

    private func operateOnChats(_ a: Json) async throws -> Json {
        let op = try text(a, "op")
        if op == "chat" {
            var request = try requestOf(a["options"] ?? .object([:])) { name in try get(["name": .text(name)], "name") }
            request.prompt = .chat(a["system"]?.text.map { [.system($0)] } ?? [])
            let tools = (a["tools"]?.list ?? []).map { tool in
                let (answer, complaint) = (tool["answer"]?.source, tool["error"]?.text)
                return ChatTool(definition: tool["definition"]!.source) { arguments in
                    if let complaint { throw ToolError.Failed(message: complaint) }
                    return answer ?? arguments
                }
            }
            let overflow: Overflow? = a["overflow"].map { $0 == "refuse" ? .refuse : .dropOldest }
            return add(a, try ChatSession(
                model: try get(a, "model"), request: request, tools: tools, maxRounds: a["max_rounds"]?.count,
                overflow: overflow))
        }
        let chat: ChatSession = try get(a, "chat")
        switch op {
        case "ask": return json(try await chat.ask(try text(a, "text")))
        case "ask_stream": return add(a, try chat.start(question: .user(try text(a, "text"))))
        case "chat_state":
            return .object([
                "messages": .list(try chat.messages().map { try json($0) }),
                "dropped_messages": Json(chat.droppedMessages()), "busy": .bool(chat.isBusy()),
            ])
        case "set_messages": try chat.setMessages(messages: a["messages"]!.list!.map(messageOf))
        case "undo": return .bool(try chat.undo())
        default: try chat.clear()
        }
        return nil
    }

    private func load(_ a: Json) async throws -> Json {
        var options = LoadOptions()
        for (key, value) in a["options"]?.object ?? [:] {
            switch key {
            // generated by ci/api: load options
            case "kv_tokens": options.kvTokens = value.count
            case "context_length": options.contextLength = value.count
            case "kv_memory": options.kvMemory = value.count
            case "cache_type": options.cacheType = (["f32": .f32, "f16": .f16, "q8_0": .q8] as [String: CacheType])[value.text!]!
            case "chat_template": options.chatTemplate = value.text
            case "speculation": options.speculation = (["auto": .auto, "off": .off, "lookup": .lookup, "draft": .draft] as [String: Speculation])[value.text!]!
            case "draft_model": options.draftModel = value.text
            case "max_queued": options.maxQueued = value.count
            case "gpu_layers": options.gpuLayers = value.count
            case "experts_on_cpu": options.expertsOnCpu = value == .bool(true)
            // end of load options
            default: throw Complaint(description: "a load has no `\(key)`")
            }
        }
        let said = Lines()
        let name = try text(a, "reference")
        // A file of the scenarios, or a name.
        let file = try path(a, "reference")
        let reference = FileManager.default.fileExists(atPath: file) ? file : name
        let runtime: Realm = a["realm"] != nil ? try get(a, "realm") : realm
        let loaded = try await runtime.loadModel(reference, options: options) { progress in
            guard progress.stage == .loading else { return }
            said.add(.object(["done": Json(progress.done), "total": Json(progress.total)]))
        }
        _ = add(a, loaded)
        return said.all.list?.last ?? .object([:])
    }

    private func operateOnTenants(_ a: Json) async throws -> Json {
        let op = try text(a, "op")
        switch op {
        case "tenant": return add(a, try realm.tenant(try text(a, "name"), limits: try limitsOf(a["limits"])))
        case "tenant_model": return add(a, try (get(a, "tenant") as Tenant).model(model: try get(a, "model")))
        case "set_limits": try (get(a, "tenant") as Tenant).setLimits(limits: try limitsOf(a["limits"]))
        case "tenant_state":
            let tenant: Tenant = try get(a, "tenant")
            return .object([
                "name": .text(tenant.name()), "running": Json(tenant.running()), "waiting": Json(tenant.waiting()),
                "has_program": .bool(tenant.hasProgram()), "limits": json(tenant.limits()),
            ])
        case "tenant_metrics": return json(try (get(a, "tenant") as Tenant).metrics())
        case "load_program", "compile_program":
            let file = try path(a, "file")
            let program: Program
            if op == "load_program" {
                program = try await realm.loadProgram(path: file)
            } else {
                let wasm = try Data(contentsOf: URL(fileURLWithPath: file))
                program = a["tenant"]?.text == nil
                    ? try await realm.compileProgram(wasm: wasm)
                    : try await (get(a, "tenant") as Tenant).compileProgram(wasm: wasm)
            }
            let info = program.info()
            _ = add(a, program)
            return .object([
                "contract": .text("\(info.contract)"), "imports": Json(info.imports), "exports": Json(info.exports),
                "bytes": Json(info.bytes),
            ])
        case "set_program":
            try (get(a, "tenant") as Tenant).setProgram(program: a["program"] == .null ? nil : try get(a, "program"))
        case "add_program":
            try (get(a, "tenant") as Tenant).addProgram(name: try text(a, "name"), program: try get(a, "program"))
        case "remove_program": return .bool(try (get(a, "tenant") as Tenant).removeProgram(name: try text(a, "name")))
        case "set_grants":
            let lines = Lines()
            try (get(a, "tenant") as Tenant).setGrants(grants: grantsOf(a, lines))
            return add(a, lines)
        case "log_lines":
            // Lines come on a thread of their own, some time after the program wrote them.
            let lines: Lines = try get(a, "log")
            for _ in 0..<100 where lines.all.list?.isEmpty ?? true { try await Task.sleep(nanoseconds: 10_000_000) }
            return lines.all
        default: throw Complaint(description: "there is no operation `\(op)`")
        }
        return nil
    }

    private func grantsOf(_ a: Json, _ lines: Lines) -> Grants {
        var grants = Grants()
        if a["log"]?.isTrue == true {
            grants.allowLog { level, tenant, message in
                lines.add(.object(["tenant": .text(tenant), "level": .text("\(level)"), "message": .text(message)]))
            }
        }
        grants.clock = a["clock"]?.isTrue ?? false
        if let random = a["random"] { grants.random = random.count.map { .seed($0) } ?? .system }
        if let quota = a["store"]?.count { grants.store = Store(quota: quota) }
        grants.http = a["http"]?.texts ?? []
        for (name, tool) in a["tools"]?.object ?? [:] {
            let (answer, complaint) = (tool["answer"]?.source, tool["error"]?.text)
            grants.allowTool(name, json: { arguments in
                if let complaint { throw ToolError.Failed(message: complaint) }
                return answer ?? arguments
            })
        }
        return grants
    }
}
