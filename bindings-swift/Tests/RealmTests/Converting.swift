//  JSON of scenarios as Realm's values, and results as JSON.

import Foundation
import Realm

func requestOf(_ asked: Json, adapter: (String) throws -> Adapter) throws -> Request {
    var request = Request(prompt: .text(""))
    for (key, value) in asked.object ?? [:] {
        let float = Float(value.double ?? .nan)
        switch key {
        case "prompt": request.prompt = .text(value.text!)
        case "tokens": request.prompt = .tokens(value.ids)
        case "messages":
            request.prompt = .chat(value.list!.map(messageOf))
        case "tools": request.tools = value.list!.map(\.source)
        case "tool_choice":
            switch value.text {
            case "auto": request.toolChoice = .auto
            case "none": request.toolChoice = .never
            case "required": request.toolChoice = .required
            default: request.toolChoice = .function(value["function"]!["name"]!.text!)
            }
        case "add_generation_prompt": request.addGenerationPrompt = value.isTrue
        case "continue_final_message": request.continueFinalMessage = value.isTrue
        case "special": request.special = value.isTrue
        case "template_variables": request.templateVariables = value.object!.mapValues(\.source)
        case "enable_thinking": request.enableThinking = value.isTrue
        case "reasoning_effort": request.reasoningEffort = value.text!
        case "reasoning_format":
            switch value.text! {
            case "separate": request.reasoningFormat = .separate
            case "inline": request.reasoningFormat = .inline
            default: throw Complaint(description: "there is no such format of thoughts")
            }
        case "temperature": request.temperature = float
        case "top_k": request.topK = value.count!
        case "top_p": request.topP = float
        case "min_p": request.minP = float
        case "typical_p": request.typicalP = float
        case "repetition_penalty": request.repetitionPenalty = float
        case "repetition_window": request.repetitionWindow = value.count!
        case "frequency_penalty": request.frequencyPenalty = float
        case "presence_penalty": request.presencePenalty = float
        case "logit_bias":
            request.logitBias = Dictionary(uniqueKeysWithValues: value.object!.map { (UInt32($0.key)!, Float($0.value.double!)) })
        case "banned_tokens": request.bannedTokens = value.ids
        case "seed": request.seed = value.count
        case "max_tokens": request.maxTokens = value.count
        case "stop": request.stop = value.texts
        case "json_schema": request.guide = .jsonSchema(value.source)
        case "json": request.guide = .jsonObject
        case "regex": request.guide = .regex(value.text!)
        case "lark": request.guide = .lark(value.text!)
        case "logprobs": request.logprobs = value.count
        case "ignore_eos": request.ignoreEos = value.isTrue
        case "shared_prefix": request.sharedPrefix = value == "system" ? .system : .tokens(value.count!)
        case "adapter": request.adapter = try adapter(value.text!)
        case "adapter_scale": request.adapterScale = float
        case "input": request.input = value.source
        case "logits_processors":
            for asked in value.list! {
                request.addLogitsProcessor { tokens, logits in
                    if let complaint = asked["fail"]?.text { throw ToolError.Failed(message: complaint) }
                    if let only = asked["only"]?.ids {
                        for id in logits.indices where !only.contains(UInt32(id)) { logits[id] = -.infinity }
                    }
                    if asked["not_the_last"]?.isTrue == true { logits[Int(tokens.last!)] = -.infinity }
                    if asked["nan"]?.isTrue == true { logits[0] = .nan }
                }
            }
        case "speculation": request.speculation = speculationOf(value.text!)
        default: throw Complaint(description: "a request has no `\(key)`")
        }
    }
    return request
}

func messageOf(_ message: Json) -> Message {
    var fields = message.object!
    let role = fields.removeValue(forKey: "role")!.text!
    // What is no text, parts or null, is a field.
    let content = fields["content"]?.text ?? ""
    if fields["content"]?.text != nil { fields["content"] = nil }
    return Message(role: role, content: content, fields: fields.isEmpty ? nil : Json.object(fields).source)
}

func json(_ message: Message) throws -> Json {
    var fields = try message.fields.map { try JSONDecoder().decode(Json.self, from: Data($0.utf8)).object! } ?? [:]
    fields["role"] = .text(message.role)
    fields["content"] = .text(message.content)
    return .object(fields)
}

func speculationOf(_ name: String) -> Speculation {
    switch name {
    case "auto": return .auto
    case "lookup": return .lookup
    case "draft": return .draft
    default: return .off
    }
}

func limitsOf(_ asked: Json?) throws -> Limits {
    var limits = Limits()
    for (key, value) in asked?.object ?? [:] {
        switch key {
        case "weight": limits.weight = Float(value.double!)
        case "max_concurrent": limits.maxConcurrent = value.count
        case "max_queued": limits.maxQueued = value.count!
        case "kv_tokens": limits.kvTokens = value.count
        case "tokens_per_minute": limits.tokensPerMinute = value.count.map { UInt32($0) }
        case "request_timeout_ms": limits.requestTimeout = value.double! / 1000
        case "memory": limits.memory = value.count!
        case "models": limits.models = value.texts
        case "adapters": limits.adapters = value.texts
        case "program_memory": limits.programMemory = value.count!
        case "program_cpu_time_ms": limits.programCpuTime = value.double! / 1000
        case "program_handles": limits.programHandles = value.count!
        case "program_output": limits.programOutput = value.count!
        default: throw Complaint(description: "there is no limit `\(key)`")
        }
    }
    return limits
}

func json(_ limits: Limits) -> Json {
    .object([
        "weight": Json(limits.weight), "max_concurrent": Json(limits.maxConcurrent),
        "max_queued": Json(limits.maxQueued), "kv_tokens": Json(limits.kvTokens),
        "tokens_per_minute": Json(limits.tokensPerMinute),
        "request_timeout_ms": limits.requestTimeout.map { .number($0 * 1000) } ?? .null,
        "memory": Json(limits.memory), "models": limits.models.map { Json($0) } ?? .null, "adapters": limits.adapters.map { Json($0) } ?? .null,
        "program_memory": Json(limits.programMemory), "program_cpu_time_ms": .number(limits.programCpuTime * 1000),
        "program_handles": Json(limits.programHandles), "program_output": Json(limits.programOutput),
    ])
}

func json(_ top: [TokenLogprob]) -> Json {
    .list(top.map { .object(["id": Json($0.id), "logprob": Json($0.logprob)]) })
}

func json(_ tokens: [Token]) -> Json {
    .list(tokens.map { .object(["id": Json($0.id), "logprob": Json($0.logprob), "top": json($0.top)]) })
}

func json(_ usage: Usage) -> Json {
    .object([
        "prompt_tokens": Json(usage.promptTokens), "cached_tokens": Json(usage.cachedTokens),
        "generated_tokens": Json(usage.generatedTokens), "draft_tokens": Json(usage.draftTokens),
        "accepted_tokens": Json(usage.acceptedTokens), "reasoning_tokens": Json(usage.reasoningTokens),
    ])
}

func name(_ reason: FinishReason) -> Json {
    switch reason {
    case .stop: return "stop"
    case .length: return "length"
    case .toolCalls: return "tool_calls"
    }
}

func json(_ calls: [ToolCall]) -> Json {
    .list(calls.map { .object(["id": .text($0.id), "name": .text($0.name), "arguments": .text($0.arguments)]) })
}

func json(_ completion: Completion) -> Json {
    .object([
        "text": .text(completion.text), "ids": Json(completion.tokens.map(\.id)), "tokens": json(completion.tokens),
        "tool_calls": json(completion.toolCalls), "reasoning": .text(completion.reasoning),
        "warnings": Json(completion.warnings),
        "finish_reason": name(completion.finishReason), "usage": json(completion.usage),
        "decode_seconds": .number(completion.timings.decode),
    ])
}

func json(_ chunk: Chunk) -> Json {
    .object([
        "text": .text(chunk.text), "tokens": json(chunk.tokens), "tool_calls": json(chunk.toolCalls),
        "reasoning": .text(chunk.reasoning), "warnings": Json(chunk.warnings),
        "finish": chunk.finish.map { .object(["reason": name($0.reason), "usage": json($0.usage)]) } ?? .null,
    ])
}

func json(_ served: Served) -> Json {
    .object([
        "prompt_tokens": Json(served.promptTokens), "cached_tokens": Json(served.cachedTokens),
        "generated_tokens": Json(served.generatedTokens), "finished": Json(served.finished),
        "cancelled": Json(served.cancelled), "timed_out": Json(served.timedOut), "refused": Json(served.refused),
        "failed": Json(served.failed), "preemptions": Json(served.preemptions), "running": Json(served.running),
        "waiting": Json(served.waiting), "kv_pages": Json(served.kvPages),
        "first_tokens": Json(served.firstTokenSeconds.count),
    ])
}
