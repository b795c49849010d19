/* Realm for C and C++: many isolated tenants' AI programs on one copy of a model's weights.
 * Generated from bindings-c/src; do not edit. */

#ifndef REALM_H
#define REALM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Rules for all functions
 *
 * Objects. A function that returns a pointer to an opaque type gives the object to the caller, who frees it once with the
 * type's own `_free` function; NULL is ignored. Objects keep what they need: a model may be freed while its generations
 * run. A pointer that a getter returns belongs to the object and is valid as long as the object is.
 *
 * Memory. Arrays and texts that a function returns without `const` come from `malloc`: free them with `realm_free` or
 * `free`.
 *
 * Texts are UTF-8 and end with a zero. If a text may contain zeros, its length is returned, too.
 *
 * Errors. A function that can fail has `RealmError **error` as its last parameter, and returns NULL or false if it failed.
 * Then `*error` is an error that the caller frees, unless `error` is NULL. Otherwise `*error` is not written. NULL in place
 * of a required object or text is the error `invalid-argument`; a function that cannot fail then does nothing, or returns
 * an empty value. The same applies to unknown enum values.
 *
 * Threads. Any number of threads may use a runtime, model, adapter, program, tenant, tokenizer or generation at once. All
 * other objects (requests, options, limits, grants, sequences, results) may be used by one thread at a time, which may be
 * any thread. Never free an object while another thread is inside a function with it. After `fork` only the parent may
 * use Realm.
 *
 * Callbacks. A callback may throw C++ exceptions only if its comment says so. All others are REALM_NOEXCEPT: from C++17 on,
 * a compiler refuses functions that may throw. Callbacks may call Realm. If a function takes `user_data` with a `drop`,
 * `drop` is called once, from any thread, when Realm no longer uses `user_data`; both may be NULL. */

#if defined(__cplusplus) && (__cplusplus >= 201703L || (defined(_MSVC_LANG) && _MSVC_LANG >= 201703L))
#define REALM_NOEXCEPT noexcept
#else
#define REALM_NOEXCEPT
#endif

/* The version of this interface. Within a major version, no function is removed or changes its meaning. */
#define REALM_ABI_MAJOR 0
#define REALM_ABI_MINOR 1

/* Stands for no limit, and for an unknown number. */
#define REALM_NONE UINT64_MAX

#ifdef __cplusplus
extern "C" {
#endif

struct RealmChunk;
struct RealmToolCall;

/* The severity of a line in a log. */
typedef enum {
    REALM_LEVEL_ERROR = 0,
    REALM_LEVEL_WARN = 1,
    REALM_LEVEL_INFO = 2,
    REALM_LEVEL_DEBUG = 3,
    REALM_LEVEL_TRACE = 4,
} RealmLevel;

/* Releases `user_data`. */
typedef void (*RealmDrop)(void *user_data) REALM_NOEXCEPT;

/* Receives a chunk, which is valid until it returns. Runs on the thread that called `realm_model_each`, and may throw.
 * Returns whether to continue. */
typedef bool (*RealmOnChunk)(void *user_data, const struct RealmChunk *chunk);

/* Receives the progress of a load or a pull, on the calling thread: the stage (`waiting`, `fetching`, `failed`, `fetched`,
 * `loading`), a file or a source, and bytes; `total` is REALM_NONE if it is unknown. */
typedef void (*RealmOnProgress)(void *user_data, const char *stage, const char *what, uint64_t done,
                                uint64_t total) REALM_NOEXCEPT;

/* Receives a line of a log, on a thread of its own. `from` is the tenant of a program's line, or the part of Realm. */
typedef void (*RealmOnLog)(void *user_data, RealmLevel level, const char *from, const char *message) REALM_NOEXCEPT;

/* A tool of the application that a program or a model calls with a JSON text. The call must be answered exactly once, by
 * `realm_tool_call_answer` or `realm_tool_call_fail`: at once or later, from any thread. Each call has a thread of its own,
 * so it may take long and call Realm. */
typedef void (*RealmTool)(void *user_data, const char *arguments, struct RealmToolCall *call) REALM_NOEXCEPT;

/* Changes the logits of the next token, one for each token of the vocabulary, in place; -INFINITY excludes a token.
 * `tokens` are the tokens so far, including the prompt's. Both arrays are valid until it returns. Runs on a thread of the
 * request's own. Returns NULL, or an error message, which is copied and ends the request. */
typedef const char *(*RealmLogitsProcessor)(void *user_data, const uint32_t *tokens, size_t tokens_len, float *logits,
                                            size_t logits_len) REALM_NOEXCEPT;

#ifdef __cplusplus
}
#endif


// The rule for a conversation that no longer fits in the context.
typedef enum {
    // Drops the oldest turns, each a question with everything that answered it. System messages stay.
    REALM_OVERFLOW_DROP_OLDEST,
    // Refuses the question with `limit-exceeded`.
    REALM_OVERFLOW_REFUSE,
} RealmOverflow;

// The kind of failure: stable names for programs, the same in every language.
typedef enum {
    // A model's file is malformed or contradicts itself.
    REALM_ERROR_CODE_INVALID_MODEL = 1,
    // An adapter's file is malformed, contradicts itself or does not fit the model.
    REALM_ERROR_CODE_INVALID_ADAPTER = 2,
    // An argument is out of range or contradicts another.
    REALM_ERROR_CODE_INVALID_ARGUMENT = 3,
    // A request is larger than its own limits or its tenant's allow.
    REALM_ERROR_CODE_LIMIT_EXCEEDED = 4,
    // Too many requests wait already. Try again later.
    REALM_ERROR_CODE_OVERLOADED = 5,
    // Realm does not support the file, device or option.
    REALM_ERROR_CODE_UNSUPPORTED = 6,
    // The model or file does not exist.
    REALM_ERROR_CODE_NOT_FOUND = 7,
    // Reading, writing or fetching failed.
    REALM_ERROR_CODE_IO = 8,
    // A program is not WebAssembly that Realm can run.
    REALM_ERROR_CODE_INVALID_PROGRAM = 9,
    // A program broke a rule of WebAssembly, or panicked.
    REALM_ERROR_CODE_TRAP = 10,
    // A program, or a tool that it called, reported that it failed.
    REALM_ERROR_CODE_FAILED = 11,
    // A program used something that its tenant was not granted.
    REALM_ERROR_CODE_DENIED = 12,
    // The request was cancelled.
    REALM_ERROR_CODE_CANCELLED = 13,
    // Realm itself failed.
    REALM_ERROR_CODE_INTERNAL = 14,
} RealmErrorCode;

// The reason why a generation ended.
typedef enum {
    // The model wrote an end token, a stop string appeared, or the grammar is complete.
    REALM_FINISH_REASON_STOP,
    // The text reached `max_tokens` or the end of the context.
    REALM_FINISH_REASON_LENGTH,
    // The model called tools and waits for their results.
    REALM_FINISH_REASON_TOOL_CALLS,
} RealmFinishReason;

// A limit that is a number.
typedef enum {
    // The most requests that run at once; others wait.
    REALM_LIMIT_MAX_CONCURRENT,
    // The most requests that wait for a place; one more is refused with `limit-exceeded`. By default 1024.
    REALM_LIMIT_MAX_QUEUED,
    // The most tokens in the KV cache of one model, over all running requests. A request that reaches the
    // limit alone ends there, as at the end of the context.
    REALM_LIMIT_KV_TOKENS,
    // The most tokens computed in a minute, of prompts and generated, over all models. A tenant that has
    // used them up waits. Unused tokens accumulate up to one minute's worth.
    REALM_LIMIT_TOKENS_PER_MINUTE,
    // The longest time from a request's start to its end, including waiting; then it ends with
    // `limit-exceeded`. In milliseconds.
    REALM_LIMIT_REQUEST_TIMEOUT_MS,
    // The most bytes of memory of one run of a program. By default 64 MiB.
    REALM_LIMIT_PROGRAM_MEMORY,
    // The longest time that one run of a program computes itself. In milliseconds. By default 10 s.
    REALM_LIMIT_PROGRAM_CPU_TIME_MS,
    // The most handles that one run of a program holds at once: logits, sequences, grammars and so on. By
    // default 1024.
    REALM_LIMIT_PROGRAM_HANDLES,
    // The most bytes of text that one run of a program sends. By default 16 MiB.
    REALM_LIMIT_PROGRAM_OUTPUT,
    // The most bytes of memory that the tenant holds at once, of all kinds; requests beyond the limit are
    // refused with `limit-exceeded`. By default 1 GiB.
    REALM_LIMIT_MEMORY,
} RealmLimit;

// A limit that is a list of names.
typedef enum {
    // The models that the tenant may use.
    REALM_NAME_LIMIT_MODELS,
    // The adapters that the tenant may use.
    REALM_NAME_LIMIT_ADAPTERS,
} RealmNameLimit;

// The way that hidden states become an embedding.
typedef enum {
    // The pooling that the model's file says.
    REALM_POOLING_DEFAULT,
    // The mean of the hidden states.
    REALM_POOLING_MEAN,
    // The hidden state of the last token.
    REALM_POOLING_LAST,
    // The hidden state of the first token.
    REALM_POOLING_CLS,
} RealmPooling;

// The format of numbers in the KV cache.
typedef enum {
    // 32-bit floats: exact, twice the memory of 16-bit ones.
    REALM_CACHE_TYPE_F32,
    // 16-bit floats.
    REALM_CACHE_TYPE_F16,
    // 8-bit integers with a 16-bit scale for every 32 numbers of a head; keys are stored as differences from
    // the page's first key.
    REALM_CACHE_TYPE_Q8_0,
} RealmCacheType;

// The source of drafts: tokens that are computed on the chance that they follow. The text is the same with
// and without drafts. Each source is used only while it measurably speeds texts up.
typedef enum {
    // Takes drafts from every source, including tokens that a request's grammar forces.
    REALM_SPECULATION_AUTO,
    // Makes no drafts.
    REALM_SPECULATION_OFF,
    // Takes drafts from prompt lookup alone: tokens that followed the last tokens earlier in the prompt or
    // in the text.
    REALM_SPECULATION_LOOKUP,
    // Takes drafts from the draft model alone.
    REALM_SPECULATION_DRAFT,
} RealmSpeculation;

// A measurement with a distribution.
typedef enum {
    // The rows of a forward pass.
    REALM_HISTOGRAM_BATCH_ROWS,
    // The sequences in a forward pass.
    REALM_HISTOGRAM_BATCH_SEQUENCES,
    // The seconds of a step.
    REALM_HISTOGRAM_STEP_SECONDS,
    // The seconds that requests waited for a place in the batch.
    REALM_HISTOGRAM_QUEUE_SECONDS,
    // The seconds from a request's arrival to its first token.
    REALM_HISTOGRAM_FIRST_TOKEN_SECONDS,
    // The seconds between a request's tokens.
    REALM_HISTOGRAM_INTER_TOKEN_SECONDS,
} RealmHistogram;

// The level of the contract that a program is written for.
typedef enum {
    // The program answers requests.
    REALM_CONTRACT_PROGRAM,
    // The program is called at each token.
    REALM_CONTRACT_POLICY,
    // The program is a core module that answers requests through plain functions.
    REALM_CONTRACT_MODULE,
} RealmContract;

// The state of a model in the cache folder.
typedef enum {
    // The model is not there.
    REALM_MODEL_STATE_ABSENT,
    // A part is there; the next pull continues it.
    REALM_MODEL_STATE_PARTIAL,
    // The whole file is there.
    REALM_MODEL_STATE_PRESENT,
} RealmModelState;

// The results that a forward returns.
typedef enum {
    // No results: only keys and values, for a later forward.
    REALM_OUTPUT_NOTHING,
    // The logits after the last token, `[vocab]`.
    REALM_OUTPUT_LAST_LOGITS,
    // The logits after every new token, `[new tokens, vocab]`.
    REALM_OUTPUT_LOGITS,
    // The last hidden state of every new token, `[new tokens, hidden]`.
    REALM_OUTPUT_HIDDEN,
} RealmOutput;

// The purpose of memory.
typedef enum {
    // Requests that wait or run: prompts, stop strings, biases, grammars, fields.
    REALM_MEMORY_KIND_REQUESTS,
    // Chunks, events and answers that no reader has taken yet.
    REALM_MEMORY_KIND_RESULTS,
    // Sequences: their tokens and the engine's records of them; also snapshots while they are taken or
    // restored.
    REALM_MEMORY_KIND_SEQUENCES,
    // Runs of programs: instances, linear memories, tables and stacks.
    REALM_MEMORY_KIND_PROGRAMS,
    // Values that programs hold handles of: logits, tensors, caches, samplers, guides through grammars,
    // WASI's resources.
    REALM_MEMORY_KIND_HANDLES,
    // Strings and lists on their way between a program and the host, and HTTP requests with their
    // connections and answers.
    REALM_MEMORY_KIND_TRANSFERS,
    // Stores of programs in memory, and the keys of stores on disk.
    REALM_MEMORY_KIND_STORES,
    // Compiled code of programs, the bytes of those that are being compiled, and compiled grammars.
    REALM_MEMORY_KIND_CODE,
    // Lines of programs' logs that the application has not taken yet.
    REALM_MEMORY_KIND_LOGS,
} RealmMemoryKind;

// A LoRA adapter of a model. Unloaded when the last handle and the last request that uses it are gone.
typedef struct RealmAdapter RealmAdapter;

// The options of a chat session besides those of its request.
typedef struct RealmChatOptions RealmChatOptions;

// A conversation with a model: it keeps the messages, runs the tools that the model calls, and makes room
// when the context is full. It answers one question at a time. A question that fails or is cancelled leaves
// the conversation as it was before the question.
typedef struct RealmChatSession RealmChatSession;

// A part of a generation.
typedef struct RealmChunk RealmChunk;

// A whole answer.
typedef struct RealmCompletion RealmCompletion;

// An error: a code, its name, and a message.
typedef struct RealmError RealmError;

// Facts from a model's file.
typedef struct RealmFileInfo RealmFileInfo;

// The results of a forward pass.
typedef struct RealmForwarded RealmForwarded;

// A running request. Freeing it cancels the request and frees its part of the KV cache.
typedef struct RealmGeneration RealmGeneration;

// The things that a tenant's programs may do besides asking models. The default is nothing.
typedef struct RealmGrants RealmGrants;

// The limits of a tenant.
typedef struct RealmLimits RealmLimits;

// The options of loading a model.
typedef struct RealmLoadOptions RealmLoadOptions;

// A reading of a model's counters and gauges.
typedef struct RealmMetrics RealmMetrics;

// A loaded model, as one tenant sees it. Handles are cheap and share the model; the weights are freed when
// the last handle and the last generation are gone.
typedef struct RealmModel RealmModel;

// The models of the catalog and of the cache folder.
typedef struct RealmModelList RealmModelList;

// A compiled WebAssembly program; any number of tenants may use it.
typedef struct RealmProgram RealmProgram;

// A prompt, and the options of its answer. A generation does not change its request, so a request can be
// used again.
typedef struct RealmRequest RealmRequest;

// The runtime: owns the devices and loads models. One for each process is normal.
typedef struct RealmRuntime RealmRuntime;

// The scores of the tokens of a text.
typedef struct RealmScores RealmScores;

// A token sequence with its KV cache. While it is idle, Realm may give its part of the cache to others and
// compute it again when it is needed.
typedef struct RealmSequence RealmSequence;

// An identity with limits that hold over all models it uses. It ends when its last handle, the last model
// that it sees, and its last request are gone.
typedef struct RealmTenant RealmTenant;

// A tokenizer: a model's, or one that was loaded without a model.
typedef struct RealmTokenizer RealmTokenizer;

// A program that waits for a tool's answer.
typedef struct RealmToolCall RealmToolCall;

// A token and the natural logarithm of its probability.
typedef struct {
    // The token.
    uint32_t id;
    // The log-probability, in nats.
    float logprob;
} RealmTokenLogprob;

// A generated token.
typedef struct {
    // Its id.
    uint32_t id;
    // Its log-probability; not a number if the request did not ask for it.
    float logprob;
    // The likeliest tokens in its place, if the request asked for them. They belong to the chunk or
    // completion.
    const RealmTokenLogprob *top;
    // The number of tokens in `top`.
    size_t top_len;
} RealmToken;

// A tool call that the model asks for. Realm does not run it: run the tool, add the model's message with its
// `tool_calls` and a message of the role `tool` with the result, and ask again. Texts end with a zero and
// belong to the chunk or completion.
typedef struct {
    // The id that the result refers to.
    const char *id;
    // The tool's name. The model may make up a name that no tool has.
    const char *name;
    // The arguments: a JSON object, which may not fit the tool's schema.
    const char *arguments;
} RealmFunctionCall;

// Tokens and seconds used, and the reason why a generation ended.
typedef struct {
    // The reason.
    RealmFinishReason reason;
    // Tokens of the prompt.
    size_t prompt_tokens;
    // Those of the prompt's tokens that an earlier request computed.
    size_t cached_tokens;
    // Tokens generated, including an end token.
    size_t generated_tokens;
    // Those of the generated tokens that belong to the model's thought.
    size_t reasoning_tokens;
    // Tokens computed on the chance that they follow.
    size_t draft_tokens;
    // Those of the draft tokens that did follow.
    size_t accepted_tokens;
    // Seconds of waiting for a place in the batch.
    double queued_seconds;
    // Seconds from there to the first token.
    double prefill_seconds;
    // Seconds from the first token to the last.
    double decode_seconds;
} RealmFinish;

// Counters and gauges of one tenant, or of all. Counters start when the model is loaded.
typedef struct {
    // Prompt tokens that were computed. Tokens that programs append to their sequences are among them.
    uint64_t prompt_tokens;
    // Prompt tokens that were found in the prefix cache.
    uint64_t cached_tokens;
    // Generated tokens.
    uint64_t generated_tokens;
    // Tokens that were computed again because their pages had been given to others.
    uint64_t recomputed_tokens;
    // Drafts: tokens that were computed on the chance that they follow.
    uint64_t draft_tokens;
    // Drafts that were accepted. They are among the generated tokens.
    uint64_t accepted_tokens;
    // Requests that have their results.
    uint64_t finished;
    // Requests whose caller stopped waiting.
    uint64_t cancelled;
    // Requests that exceeded their tenant's `request_timeout`.
    uint64_t timed_out;
    // Requests that found no place in a queue.
    uint64_t refused;
    // Requests that ended because a forward pass failed or their grammar could not be followed any further.
    uint64_t failed;
    // The number of times that a request gave its pages up for others.
    uint64_t preemptions;
    // Sequences in the batch now.
    uint64_t running;
    // Requests that wait now.
    uint64_t waiting;
    // Pages of the KV cache that sequences hold now.
    uint64_t kv_pages;
    // Requests that have had their first token.
    uint64_t first_tokens;
    // The sum of their waiting times for it, in seconds.
    double first_token_seconds;
    // The sum of the seconds that requests waited for a place in the batch.
    double queue_seconds;
} RealmServed;

// Pages of a KV cache.
typedef struct {
    // All pages.
    size_t total;
    // Pages that sequences hold. A page that several sequences share counts once.
    size_t used;
    // Pages that only the prefix cache holds, for prompts that begin alike.
    size_t remembered;
    // Empty pages.
    size_t free;
    // Bytes of one page.
    size_t page_bytes;
} RealmKvPages;

// Facts about a model. The texts belong to the model's handle.
typedef struct {
    // The reference that it was loaded by.
    const char *reference;
    // The name in the file, `general.name`; empty if it has none.
    const char *name;
    // The architecture, such as `llama`.
    const char *architecture;
    // The device that it runs on.
    const char *device;
    // The number of weights.
    uint64_t parameters;
    // The size of the file, in bytes.
    uint64_t file_bytes;
    // The size of the vocabulary, in tokens.
    size_t vocabulary;
    // The number of transformer layers.
    size_t layers;
    // The longest context of one request, prompt and generation together, in tokens.
    size_t context_length;
    // The longest context that the model was trained for, in tokens.
    size_t trained_context_length;
    // The length of a hidden state, and so of an embedding.
    size_t hidden;
    // The default pooling of embeddings.
    RealmPooling pooling;
    // True if it has a chat template.
    bool chat_template;
} RealmModelInfo;

// The score of one token.
typedef struct {
    // The log-probability, in nats, of the token that follows in the text; not a number after the last one.
    float next;
    // The likeliest tokens in its place, likeliest first. They belong to the scores.
    const RealmTokenLogprob *top;
    // The number of tokens in `top`.
    size_t top_len;
} RealmScore;

// Facts about a program.
typedef struct {
    // The level of the contract that it exports.
    RealmContract contract;
    // The number of interfaces that it imports.
    size_t imports;
    // The number of interfaces that it exports.
    size_t exports;
    // The size of the component or module, in bytes.
    size_t bytes;
} RealmProgramInfo;

// An entry of the list. The texts belong to the list.
typedef struct {
    // The model's name for `realm_runtime_load_model`.
    const char *reference;
    // The path of its file, which may not exist yet.
    const char *path;
    // The state of the file.
    RealmModelState state;
    // The number of bytes that are there.
    uint64_t bytes;
} RealmModelEntry;

// The numbers of a file's info. The texts belong to it.
typedef struct {
    // The name in the file, `general.name`; empty if it has none.
    const char *name;
    // The architecture, such as `llama`.
    const char *architecture;
    // The number of weights.
    uint64_t parameters;
    // The number of transformer layers.
    size_t layers;
    // The size of the vocabulary, in tokens.
    size_t vocabulary;
    // The longest context that the model was trained for, in tokens.
    size_t trained_context_length;
    // True if the file has a chat template.
    bool chat_template;
    // The number of tensor types, for `realm_file_info_tensor_type`.
    size_t tensor_types;
} RealmFileSummary;

// A type of tensors in a file. The name belongs to the file's info.
typedef struct {
    // The name, such as `Q4_K`.
    const char *name;
    // The number of tensors of the type.
    size_t count;
    // The bytes that they take.
    uint64_t bytes;
} RealmTensorType;

// Facts about a tokenizer. Tokens that it does not have are UINT32_MAX.
typedef struct {
    // The number of tokens.
    size_t vocabulary;
    // The begin-of-sequence token.
    uint32_t bos;
    // The end-of-sequence token.
    uint32_t eos;
    // True if the model expects the begin token before a text.
    bool adds_bos;
    // The tokens that end a generation. They belong to the tokenizer.
    const uint32_t *end_tokens;
    // The number of end tokens.
    size_t end_tokens_len;
} RealmTokenizerInfo;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Returns the version of the library's interface: the major version in the upper 16 bits, the minor one in
// the lower 16. A program can use a library with the same major version and a minor version of at least
// REALM_ABI_MINOR.
uint32_t realm_abi_version(void);

// Returns the version of Realm, such as `0.1.0`. The text is never freed.
const char *realm_version(void);

// Returns the name that the adapter was loaded by; tenants' limits use this name. Belongs to the adapter.
const char *realm_adapter_name(const RealmAdapter *adapter);

// Returns the largest rank of the adapter's matrices.
size_t realm_adapter_rank(const RealmAdapter *adapter);

// Returns the size of the adapter's matrices, in bytes.
size_t realm_adapter_bytes(const RealmAdapter *adapter);

// Frees an adapter's handle.
void realm_adapter_free(RealmAdapter *adapter);

// Creates the default options: no tools, at most 8 rounds of them, and the oldest turns are dropped.
RealmChatOptions *realm_chat_options_new(void);

// Frees options.
void realm_chat_options_free(RealmChatOptions *options);

// Adds a tool that the session runs: its definition in OpenAI's format, a JSON object, and a function that
// receives the arguments and answers with JSON. The model reads the answer or the error message. Takes
// ownership of `user_data`, even if it fails. Errors: `invalid-argument` for text that is not JSON, a
// definition without a name, or NULL.
bool realm_chat_options_add_tool(RealmChatOptions *options,
                                 const char *definition,
                                 RealmTool tool,
                                 void *user_data,
                                 RealmDrop drop,
                                 RealmError **error);

// Sets the most rounds of tool calls for one question; after them the model must answer in words. 8 by
// default.
void realm_chat_options_set_max_rounds(RealmChatOptions *options, size_t rounds);

// Sets the rule for a conversation that no longer fits in the context; by default the oldest turns are
// dropped.
void realm_chat_options_set_overflow(RealmChatOptions *options, RealmOverflow overflow);

// Starts a conversation. `request`, from `realm_request_chat`, is the beginning of the conversation (a
// system message, or nothing) and has the options of each answer; `options` may be NULL. Both are copied.
// Errors: `unsupported` for a model without a chat template, `invalid-argument` for another kind of request
// and for two tools of the same name.
RealmChatSession *realm_chat_new(const RealmModel *model,
                                 const RealmRequest *request,
                                 const RealmChatOptions *options,
                                 RealmError **error);

// Frees a session. A question in progress continues until its generation is freed.
void realm_chat_free(RealmChatSession *chat);

// Asks a question and waits for the answer, whose text is that of all rounds of tools. Blocks. Errors:
// `invalid-argument` while another question is being answered; otherwise the same as `realm_model_generate`.
RealmCompletion *realm_chat_ask(const RealmChatSession *chat, const char *question, RealmError **error);

// Asks a question and returns at once; `realm_generation_next` returns the answer's chunks. Cancelling or
// freeing the generation removes the question again. Errors: same as `realm_chat_ask`.
RealmGeneration *realm_chat_stream(const RealmChatSession *chat, const char *question, RealmError **error);

// Returns the messages so far, a JSON array in OpenAI's format, for `realm_free`.
char *realm_chat_messages(const RealmChatSession *chat, RealmError **error);

// Replaces the messages by a JSON array of objects. Errors: `invalid-argument` for anything else, and while
// a question is being answered.
bool realm_chat_set_messages(const RealmChatSession *chat, const char *messages, RealmError **error);

// Removes the last question and everything that answered it. `undone`, which may be NULL, is set to whether
// there was one. Errors: `invalid-argument` while a question is being answered.
bool realm_chat_undo(const RealmChatSession *chat, bool *undone, RealmError **error);

// Removes all messages except the system messages at the beginning. Errors: `invalid-argument` while a
// question is being answered.
bool realm_chat_clear(const RealmChatSession *chat, RealmError **error);

// Returns the number of messages dropped to make room in the context, since the beginning or the last
// `realm_chat_clear`.
size_t realm_chat_dropped_messages(const RealmChatSession *chat);

// Returns whether a question is being answered.
bool realm_chat_is_busy(const RealmChatSession *chat);

// Returns the kind of failure; `REALM_ERROR_CODE_INTERNAL` for NULL.
RealmErrorCode realm_error_code(const RealmError *error);

// Returns the name of the kind of failure, the same in every language, such as `limit-exceeded`. Belongs to
// the error.
const char *realm_error_name(const RealmError *error);

// Returns the message for people: what was wrong and what would be right. Belongs to the error.
const char *realm_error_message(const RealmError *error);

// Frees an error.
void realm_error_free(RealmError *error);

// Waits for the next chunk and writes it to `chunk`, for `realm_chunk_free`; NULL after the last one, and
// after a cancel. Any number of threads may wait; each chunk goes to one of them. Errors: the error that
// ended the request early.
bool realm_generation_next(const RealmGeneration *generation, RealmChunk **chunk, RealmError **error);

// Waits for the end and joins the chunks that were not read yet. Errors: the error that ended the request
// early; `cancelled` after a cancel, or if all chunks were read before.
RealmCompletion *realm_generation_finish(const RealmGeneration *generation, RealmError **error);

// Ends the request at once and frees its part of the KV cache. Threads that wait for its chunks get NULL.
void realm_generation_cancel(const RealmGeneration *generation);

// Returns whether the request was cancelled before it ended.
bool realm_generation_is_cancelled(const RealmGeneration *generation);

// Frees a generation, and cancels the request if it has not ended. Threads that wait for its chunks get
// NULL.
void realm_generation_free(RealmGeneration *generation);

// Returns the new text, which may be empty while a character or a stop string is unfinished. Its length in
// bytes goes to `len`, which may be NULL. Belongs to the chunk.
const char *realm_chunk_text(const RealmChunk *chunk, size_t *len);

// Returns the new text of the model's thought, which is not part of the chunk's text. Its length in bytes
// goes to `len`, which may be NULL. Belongs to the chunk.
const char *realm_chunk_reasoning(const RealmChunk *chunk, size_t *len);

// Returns warning `index` of the first chunk: an option of the request that the model could serve only in
// another way. Belongs to the chunk; NULL if `index` is out of range.
const char *realm_chunk_warning(const RealmChunk *chunk, size_t index);

// Returns the number of new tokens.
size_t realm_chunk_tokens(const RealmChunk *chunk);

// Writes new token `index` to `token`; false if `index` is out of range.
bool realm_chunk_token(const RealmChunk *chunk, size_t index, RealmToken *token);

// Returns the number of new tool calls. Each call is complete, and its spelling is not part of the text.
size_t realm_chunk_tool_calls(const RealmChunk *chunk);

// Writes tool call `index` to `call`; false if `index` is out of range.
bool realm_chunk_tool_call(const RealmChunk *chunk, size_t index, RealmFunctionCall *call);

// Returns whether this is the last chunk, and then writes the end of the generation to `finish`, which may
// be NULL.
bool realm_chunk_finish(const RealmChunk *chunk, RealmFinish *finish);

// Frees a chunk of `realm_generation_next`.
void realm_chunk_free(RealmChunk *chunk);

// Returns the text, without the stop string that ended it, without tool calls and without thoughts. Its
// length in bytes goes to `len`, which may be NULL. Belongs to the completion.
const char *realm_completion_text(const RealmCompletion *completion, size_t *len);

// Returns the model's thought before its answer; empty if it had none. Its length in bytes goes to `len`,
// which may be NULL. Belongs to the completion.
const char *realm_completion_reasoning(const RealmCompletion *completion, size_t *len);

// Returns warning `index`: an option of the request that the model could serve only in another way, for
// example tools that its chat template does not know. Belongs to the completion; NULL if `index` is out of
// range.
const char *realm_completion_warning(const RealmCompletion *completion, size_t index);

// Returns the number of generated tokens, including an end token.
size_t realm_completion_tokens(const RealmCompletion *completion);

// Writes token `index` to `token`; false if `index` is out of range.
bool realm_completion_token(const RealmCompletion *completion, size_t index, RealmToken *token);

// Returns the number of tool calls.
size_t realm_completion_tool_calls(const RealmCompletion *completion);

// Writes tool call `index` to `call`; false if `index` is out of range.
bool realm_completion_tool_call(const RealmCompletion *completion, size_t index, RealmFunctionCall *call);

// Writes the end of the generation, and the tokens and seconds used, to `finish`; false for NULL.
bool realm_completion_finish(const RealmCompletion *completion, RealmFinish *finish);

// Frees a completion.
void realm_completion_free(RealmCompletion *completion);

// Creates grants that allow nothing yet.
RealmGrants *realm_grants_new(void);

// Frees grants. Tenants that use them keep them.
void realm_grants_free(RealmGrants *grants);

// Lets programs write to Realm's own log (`realm_set_log`).
void realm_grants_allow_log(RealmGrants *grants);

// Lets programs write to a log of the caller's. `on_log` is called as in `realm_set_log`: soon after, on a
// thread of its own. No line is dropped: waiting lines are the tenant's memory, and while 1 MiB of them is
// waiting, the tenant's programs wait. Takes ownership of `user_data`.
void realm_grants_allow_log_to(RealmGrants *grants, RealmOnLog on_log, void *user_data, RealmDrop drop);

// Lets programs read the time.
void realm_grants_allow_clock(RealmGrants *grants);

// Lets programs get the operating system's random numbers.
void realm_grants_allow_random(RealmGrants *grants);

// Lets programs get random numbers that are the same in each run.
void realm_grants_allow_random_seed(RealmGrants *grants, uint64_t seed);

// Lets programs keep data between runs, in a folder of the tenant's own or, with NULL, in memory. Entries
// may take this many bytes together. In memory each counts its key, its value and 128 bytes; in a folder its
// file, in blocks of 4 KiB, and its name. Errors: `io` for a folder that cannot be created or read.
bool realm_grants_allow_store(RealmGrants *grants, const char *folder, size_t quota, RealmError **error);

// Lets programs send HTTP requests to a host, such as `api.example.com`, `localhost:8080` or
// `*.example.com`. Errors: `invalid-argument` for text that is not UTF-8.
bool realm_grants_allow_http(RealmGrants *grants, const char *host, RealmError **error);

// Lets programs call a function of the application's by this name. Each call has a thread of its own, and
// may be answered later. Takes ownership of `user_data`, even if it fails. Errors: `invalid-argument` for
// text that is not UTF-8, or NULL.
bool realm_grants_allow_tool(RealmGrants *grants,
                             const char *name,
                             RealmTool tool,
                             void *user_data,
                             RealmDrop drop,
                             RealmError **error);

// Answers with a JSON text, which is copied, and ends the call. May be called from any thread.
void realm_tool_call_answer(RealmToolCall *call, const char *answer);

// Reports that the tool failed, with an error message for the program, which is copied, and ends the call.
// May be called from any thread.
void realm_tool_call_fail(RealmToolCall *call, const char *complaint);

// Creates the default limits.
RealmLimits *realm_limits_new(void);

// Frees limits.
void realm_limits_free(RealmLimits *limits);

// Sets the weight: the tenant's factor in fair sharing of the computation while others want some too. 1 by
// default.
void realm_limits_set_weight(RealmLimits *limits, float weight);

// Returns the weight.
float realm_limits_weight(const RealmLimits *limits);

// Sets a limit; REALM_NONE means no limit.
void realm_limits_set(RealmLimits *limits, RealmLimit limit, uint64_t value);

// Returns a limit; REALM_NONE means no limit.
uint64_t realm_limits_get(const RealmLimits *limits, RealmLimit limit);

// Sets the models or adapters that a tenant may use: `len` names, which are copied. With `len` 0, `names`
// may be NULL, and the tenant may use none. Errors: `invalid-argument` for text that is not UTF-8.
bool realm_limits_set_names(RealmLimits *limits,
                            RealmNameLimit limit,
                            const char *const *names,
                            size_t len,
                            RealmError **error);

// Returns the number of models or adapters that the tenant may use; REALM_NONE if it may use all.
uint64_t realm_limits_names(const RealmLimits *limits, RealmNameLimit limit);

// Returns name `index`; NULL if `index` is out of range. Belongs to the limits.
const char *realm_limits_name(const RealmLimits *limits, RealmNameLimit limit, size_t index);

// Runs `len` requests to their ends. `completions` has a place for each, in their order. A window of them
// runs at once, so a list of any length never fills a queue. If `errors` is NULL, the first error ends the
// call, and no place is written. Otherwise a failed request has NULL in `completions` and its error at the
// same index of `errors`; all other places of `errors` are NULL. The caller frees both. Blocks. Errors: same
// as `realm_model_generate`.
bool realm_model_generate_many(const RealmModel *model,
                               const RealmRequest *const *requests,
                               size_t len,
                               RealmCompletion **completions,
                               RealmError **errors,
                               RealmError **error);

// Returns the token ids of `len` texts, each encoded as `realm_model_encode` does, one text after another,
// for `realm_free`. `lens` gets the number of tokens of each text. Errors: `invalid-argument` for text that
// is not UTF-8, with the text's index.
uint32_t *realm_model_encode_many(const RealmModel *model,
                                  const char *const *texts,
                                  size_t len,
                                  bool special,
                                  bool boundaries,
                                  size_t *lens,
                                  RealmError **error);

// Returns one embedding for each of `len` texts, `[len, width]` in one array for `realm_free`; `width`,
// which may be NULL, gets the length of each vector. With `normalize` their lengths are 1. Lists of
// thousands are fine. Blocks. Errors: same as `realm_model_generate`, with the text's index.
float *realm_model_embed_many(const RealmModel *model,
                              const char *const *texts,
                              size_t len,
                              RealmPooling pooling,
                              bool normalize,
                              size_t *width,
                              RealmError **error);

// Scores `len` texts as `realm_model_score` does; `texts[i]` has `lens[i]` tokens, and `scores` has a place
// for each. Blocks. Errors: same as `realm_model_generate`, with the text's index; no place is written then.
bool realm_model_score_many(const RealmModel *model,
                            const uint32_t *const *texts,
                            const size_t *lens,
                            size_t len,
                            size_t top,
                            RealmScores **scores,
                            RealmError **error);

// Creates the default options.
RealmLoadOptions *realm_load_options_new(void);

// Frees options.
void realm_load_options_free(RealmLoadOptions *options);

// Sets the number of tokens that the KV cache holds, over all requests of all tenants; 0 holds one request
// of the model's trained context length. By default what fits in `kv_memory`. One request has at most
// `context_length` of them.
void realm_load_options_set_kv_tokens(RealmLoadOptions *options, size_t tokens);

// Sets the longest context of one request, prompt and generation together, in tokens. By default the length
// that the model was trained for, or less if the KV cache holds less. Beyond the trained length texts get
// worse, and the log warns.
void realm_load_options_set_context_length(RealmLoadOptions *options, size_t length);

// Sets the size of the KV cache, in bytes. By default on the CPU a quarter of the free memory, at most 8
// GiB, where pages take memory when they are first used; on a GPU four fifths of the memory that the weights
// leave free.
void realm_load_options_set_kv_memory(RealmLoadOptions *options, uint64_t memory);

// Sets the number format of the KV cache. 16-bit floats by default.
void realm_load_options_set_cache_type(RealmLoadOptions *options, RealmCacheType cache_type);

// Sets a chat template in place of the file's own: its source, or the name of a builtin one, such as
// `chatml` or `llama3`. Copies the text. Errors: `invalid-argument` for text that is not UTF-8.
bool realm_load_options_set_chat_template(RealmLoadOptions *options, const char *template_, RealmError **error);

// Sets the source of drafts for requests that name none. By default any source.
void realm_load_options_set_speculation(RealmLoadOptions *options, RealmSpeculation speculation);

// Sets a smaller model with the same vocabulary that drafts for this one: a path, a catalog name or an `hf:`
// reference. Copies the text. Errors: `invalid-argument` for text that is not UTF-8.
bool realm_load_options_set_draft_model(RealmLoadOptions *options, const char *model, RealmError **error);

// Sets the most requests that may wait, over all tenants; one more is refused as `overloaded`. By default
// 4096. Half of the places are divided among the tenants by their weights, at least one each; a tenant
// within its part is never refused.
void realm_load_options_set_max_queued(RealmLoadOptions *options, size_t queued);

// Sets the number of layers on GPUs, counted from the last one; the output layer is on a GPU too, and the
// CPU computes the layers before. By default as many as fit beside a KV cache. Has no effect without a GPU.
void realm_load_options_set_gpu_layers(RealmLoadOptions *options, size_t layers);

// Sets whether the CPU computes the experts of a mixture of experts, and GPUs the rest of its layers. By
// default it does if all layers fit on GPUs only then. Has no effect without a GPU.
void realm_load_options_set_experts_on_cpu(RealmLoadOptions *options, bool cpu);

// Sets a function that receives the progress of the load, on the thread that loads. Takes ownership of
// `user_data`.
void realm_load_options_set_progress(RealmLoadOptions *options,
                                     RealmOnProgress on_progress,
                                     void *user_data,
                                     RealmDrop drop);

// Sends every line of Realm's log up to a level to `on_log`, for the whole process; NULL ends that. Realm
// itself prints nothing. `on_log` is called soon after, on a thread of its own that no other thread waits
// for: it may take long and call Realm. If it is slower than the lines, some are dropped, and a line says
// how many. If another callback replaces it, it still gets the waiting lines before `drop`. Takes ownership
// of `user_data`, even if it fails. Errors: `invalid-argument` if Rust code in this process has set up a log
// of its own.
bool realm_set_log(RealmLevel most, RealmOnLog on_log, void *user_data, RealmDrop drop, RealmError **error);

// Frees an array or a text that a function returned without `const`, as `free` does; for callers whose
// `free` is another library's.
void realm_free(void *memory);

// Writes the counters and gauges of all tenants to `served`; false for NULL.
bool realm_metrics_served(const RealmMetrics *metrics, RealmServed *served);

// Writes the KV cache's numbers of pages to `pages`; false for NULL.
bool realm_metrics_kv(const RealmMetrics *metrics, RealmKvPages *pages);

// Returns the number of forward passes so far.
uint64_t realm_metrics_steps(const RealmMetrics *metrics);

// Returns the quantile `q`, from 0 to 1: the value that this part of all values does not exceed; not a
// number if there are no values.
double realm_metrics_quantile(const RealmMetrics *metrics, RealmHistogram of, double q);

// Returns the number of tenants.
size_t realm_metrics_tenants(const RealmMetrics *metrics);

// Writes the counters and gauges of tenant `index` to `served`, and returns its name, which belongs to the
// metrics; NULL if `index` is out of range.
const char *realm_metrics_tenant(const RealmMetrics *metrics, size_t index, RealmServed *served);

// Frees metrics.
void realm_metrics_free(RealmMetrics *metrics);

// Frees a model's handle.
void realm_model_free(RealmModel *model);

// Returns another handle of the same model, as the same tenant sees it. NULL only for NULL.
RealmModel *realm_model_clone(const RealmModel *model);

// Writes facts about the model to `info`; false for NULL.
bool realm_model_info(const RealmModel *model, RealmModelInfo *info);

// Encodes a text into token ids, for `realm_free`; their number goes to `len`. With `special`, control
// tokens spelled in the text become those tokens: use it only for text that no user wrote. With
// `boundaries`, the begin and end tokens are added if the model expects them. Errors: `invalid-argument` for
// text that is not UTF-8.
uint32_t *realm_model_encode(const RealmModel *model,
                             const char *text,
                             bool special,
                             bool boundaries,
                             size_t *len,
                             RealmError **error);

// Decodes tokens into text, for `realm_free`, leaving out control tokens. Its length in bytes goes to
// `text_len`, which may be NULL. Errors: `invalid-argument` for an id outside the vocabulary.
char *realm_model_decode(const RealmModel *model,
                         const uint32_t *tokens,
                         size_t len,
                         size_t *text_len,
                         RealmError **error);

// Returns a tokenizer of the model, for everything else; the caller frees it. NULL only for NULL.
RealmTokenizer *realm_model_tokenizer(const RealmModel *model);

// Renders a request for a conversation with the model's chat template, for `realm_free`. The text is for
// reading only: it no longer shows which words are the template's and which a user's, so parsing control
// tokens in it is not safe. For tokens to give to the model, use `realm_model_render_tokens`. Errors:
// `unsupported` for a model without a template, `invalid-argument` with the template's own error and for
// another kind of request.
char *realm_model_render(const RealmModel *model, const RealmRequest *request, RealmError **error);

// Returns the token ids of a request for a conversation, rendered with the model's chat template, for
// `realm_free`; their number goes to `len`. Only the template can spell control tokens; a user's words
// cannot. Errors: same as `realm_model_render`.
uint32_t *realm_model_render_tokens(const RealmModel *model,
                                    const RealmRequest *request,
                                    size_t *len,
                                    RealmError **error);

// Runs a request to its end. Blocks; use `realm_model_stream` for a request that may be cancelled. Errors:
// `invalid-argument` and `limit-exceeded` say what is wrong with the request, or which limit of the tenant
// it reached; `overloaded` if too many requests wait already; and the error that ended the request early,
// such as `trap` of a tenant's program.
RealmCompletion *realm_model_generate(const RealmModel *model, const RealmRequest *request, RealmError **error);

// Starts a request and returns at once; `realm_generation_next` returns its chunks. Errors: same as
// `realm_model_generate`.
RealmGeneration *realm_model_stream(const RealmModel *model, const RealmRequest *request, RealmError **error);

// Runs a request and calls `on_chunk` with each chunk, on this thread, until it returns false or throws,
// which cancels the request. Returns true at the end, also if `on_chunk` ended it. Blocks. Errors: same as
// `realm_model_generate`.
bool realm_model_each(const RealmModel *model,
                      const RealmRequest *request,
                      RealmOnChunk on_chunk,
                      void *user_data,
                      RealmError **error);

// Returns, for each of some tokens, the log-probability of the token that follows it and the `top` likeliest
// tokens in its place. Blocks. Errors: same as `realm_model_generate`.
RealmScores *realm_model_score(const RealmModel *model,
                               const uint32_t *tokens,
                               size_t len,
                               size_t top,
                               RealmError **error);

// Returns the number of scored tokens.
size_t realm_scores_len(const RealmScores *scores);

// Writes the score of token `index` to `score`; false if `index` is out of range.
bool realm_scores_get(const RealmScores *scores, size_t index, RealmScore *score);

// Frees scores.
void realm_scores_free(RealmScores *scores);

// Returns the log-probability of each token of `continuation` after `prompt`, in nats, `[continuation_len]`,
// for `realm_free`; their sum is the log-likelihood. Blocks. Errors: same as `realm_model_generate`, and
// `invalid-argument` if either is empty.
float *realm_model_log_likelihood(const RealmModel *model,
                                  const uint32_t *prompt,
                                  size_t prompt_len,
                                  const uint32_t *continuation,
                                  size_t continuation_len,
                                  RealmError **error);

// Returns the embedding of a text: a vector of length 1, pooled as the model's file says, for `realm_free`.
// The number of its elements goes to `len`. Blocks. Errors: same as `realm_model_generate`.
float *realm_model_embed(const RealmModel *model, const char *text, size_t *len, RealmError **error);

// Returns the embedding of tokens, for `realm_free`; with `normalize` its length is 1, so that a dot product
// is the cosine. Blocks. Errors: same as `realm_model_generate`.
float *realm_model_embed_tokens(const RealmModel *model,
                                const uint32_t *tokens,
                                size_t tokens_len,
                                RealmPooling pooling,
                                bool normalize,
                                size_t *len,
                                RealmError **error);

// Creates an empty sequence that the caller drives, one forward pass at a time. Errors: `internal`; with an
// adapter, `invalid-argument` if it belongs to another model and `limit-exceeded` if the tenant may not use
// it.
RealmSequence *realm_model_sequence(const RealmModel *model, RealmError **error);

// Restores a sequence from the bytes of `realm_sequence_save`, written by this runtime or by another one
// with the same key. Errors: `invalid-argument` for bytes that are not signed with the runtime's key or were
// changed since, and for bytes of another model, device, cache type or adapter; `limit-exceeded` if the
// sequence is longer than the context.
RealmSequence *realm_model_restore_sequence(const RealmModel *model,
                                            const uint8_t *bytes,
                                            size_t len,
                                            RealmError **error);

// Restores a sequence that a runtime with another key saved. The format of the bytes is checked in full, but
// Realm cannot check that their keys and values are those that the model computes. Therefore the tenant's
// other requests do not use them. Errors: `invalid-argument` for anything but a saved sequence of this
// model, device, cache type and adapter; `limit-exceeded` if the sequence is longer than the context.
RealmSequence *realm_model_restore_foreign_sequence(const RealmModel *model,
                                                    const uint8_t *bytes,
                                                    size_t len,
                                                    RealmError **error);

// Reads the model's counters and gauges, over all tenants since it was loaded. NULL only for NULL.
RealmMetrics *realm_model_metrics(const RealmModel *model);

// Loads a LoRA adapter while requests run: a GGUF file, or the folder that PEFT saves. Blocks. Errors: `io`,
// `invalid-adapter` for one that contradicts itself or does not fit the model, `unsupported` for kinds other
// than plain LoRA.
RealmAdapter *realm_model_load_adapter(const RealmModel *model, const char *path, RealmError **error);

// Returns a new handle of the same model with an adapter, and a factor on what the adapter adds.
// Generations, scores, embeddings and sequences are then those of the adapted model. NULL only for NULL.
RealmModel *realm_model_adapted(const RealmModel *model, const RealmAdapter *adapter, float scale);

// Writes facts about the program to `info`; false for NULL.
bool realm_program_info(const RealmProgram *program, RealmProgramInfo *info);

// Returns import `index`, the name of an interface; NULL if `index` is out of range. Belongs to the program.
const char *realm_program_import(const RealmProgram *program, size_t index);

// Returns export `index`, the name of an interface; NULL if `index` is out of range. Belongs to the program.
const char *realm_program_export(const RealmProgram *program, size_t index);

// Frees a program's handle.
void realm_program_free(RealmProgram *program);

// Creates a request that continues a text as it is. Control tokens spelled in it are not parsed. Copies the
// text. Errors: `invalid-argument` for text that is not UTF-8.
RealmRequest *realm_request_text(const char *prompt, RealmError **error);

// Creates a request that answers a conversation, which `realm_request_add_message` fills; the model's chat
// template renders it.
RealmRequest *realm_request_chat(void);

// Creates a request that continues token ids, which are copied. Errors: `invalid-argument` for NULL with a
// length.
RealmRequest *realm_request_tokens(const uint32_t *tokens, size_t len, RealmError **error);

// Frees a request.
void realm_request_free(RealmRequest *request);

// Adds a message: `role` is `system`, `user`, `assistant`, `tool` or another one that the template knows.
// Copies both. Errors: `invalid-argument` for text that is not UTF-8 or another kind of request.
bool realm_request_add_message(RealmRequest *request, const char *role, const char *content, RealmError **error);

// Adds a message with fields other than `role` and `content`, such as `tool_calls`: a JSON object in
// OpenAI's format. Errors: same as `realm_request_add_message`, and `invalid-argument` for text that is not
// JSON.
bool realm_request_add_message_json(RealmRequest *request, const char *message, RealmError **error);

// Adds a tool definition in OpenAI's format, a JSON object. With tools, calls in the answer are removed from
// its text: see `realm_completion_tool_call`. Errors: `invalid-argument`.
bool realm_request_add_tool(RealmRequest *request, const char *definition, RealmError **error);

// Sets whether the model may, must or must not call tools: `auto`, `none`, `required`, or OpenAI's object
// with a function's name as JSON. With `required` or a function's name, the answer is one call with
// arguments that the tool's schema allows. Errors: `invalid-argument`.
bool realm_request_set_tool_choice(RealmRequest *request, const char *choice, RealmError **error);

// Sets a further variable for the template, such as `documents`; its value is JSON. Errors:
// `invalid-argument`.
bool realm_request_set_template_variable(RealmRequest *request,
                                         const char *name,
                                         const char *value,
                                         RealmError **error);

// Sets whether a conversation's prompt ends with the start of the assistant's answer. By default it does,
// unless the answer continues the last message.
void realm_request_set_add_generation_prompt(RealmRequest *request, bool add);

// Sets whether the answer continues the conversation's last message. The generated text does not repeat that
// message.
void realm_request_set_continue_final_message(RealmRequest *request, bool go_on);

// Sets whether control tokens spelled in a text prompt, such as `<|im_start|>`, become those tokens. Use it
// only for text that no user wrote.
void realm_request_set_special(RealmRequest *request, bool special);

// Sets whether the model thinks before it answers, for templates with the variable `enable_thinking`. By
// default the template chooses.
void realm_request_set_enable_thinking(RealmRequest *request, bool enable);

// Sets how much the model thinks, for templates with the variable `reasoning_effort`: usually `low`,
// `medium` or `high`. Errors: `invalid-argument` for text that is not UTF-8.
bool realm_request_set_reasoning_effort(RealmRequest *request, const char *effort, RealmError **error);

// Sets the place of the model's thought: `separate`, the default, for `realm_completion_reasoning` and
// `realm_chunk_reasoning`, or `inline` for the text, with its marks. Errors: `invalid-argument`.
bool realm_request_set_reasoning_format(RealmRequest *request, const char *format, RealmError **error);

// Divides the logits; 0 takes the likeliest token (greedy). By default 0.8.
void realm_request_set_temperature(RealmRequest *request, float temperature);

// Keeps the `k` likeliest tokens; 0 keeps all. By default 40.
void realm_request_set_top_k(RealmRequest *request, size_t k);

// Keeps the likeliest tokens whose probabilities together reach `p` (Holtzman et al. 2019); 1 keeps all. By
// default 0.95.
void realm_request_set_top_p(RealmRequest *request, float p);

// Keeps tokens at least `p` times as likely as the likeliest (Nguyen et al. 2024); 0 keeps all. By default
// 0.05.
void realm_request_set_min_p(RealmRequest *request, float p);

// Keeps the tokens whose information is nearest to the expected information, up to a probability of `p`
// together (Meister et al. 2022); 1 keeps all. By default 1.
void realm_request_set_typical_p(RealmRequest *request, float p);

// Subtracted from a token's logit for each time that the token was generated. By default 0.
void realm_request_set_frequency_penalty(RealmRequest *request, float penalty);

// Subtracted once from the logit of a token that was generated. By default 0.
void realm_request_set_presence_penalty(RealmRequest *request, float penalty);

// Divides positive and multiplies negative logits of tokens that occurred among the last `window`, prompt
// included; 1, the default, changes nothing.
void realm_request_set_repetition_penalty(RealmRequest *request, float penalty, size_t window);

// Adds to the logit of a token; another call for the same token replaces the bias.
void realm_request_set_logit_bias(RealmRequest *request, uint32_t token, float bias);

// Excludes a token from generation.
void realm_request_ban_token(RealmRequest *request, uint32_t token);

// Sets the seed. The same seed gives the same text; by default every request has another one.
void realm_request_set_seed(RealmRequest *request, uint64_t seed);

// Sets the most tokens to generate; by default as many as the context holds.
void realm_request_set_max_tokens(RealmRequest *request, size_t tokens);

// Adds a string that ends the text and is not part of it. Errors: `invalid-argument` for text that is not
// UTF-8.
bool realm_request_add_stop(RealmRequest *request, const char *stop, RealmError **error);

// Sets whether to continue after an end token.
void realm_request_set_ignore_eos(RealmRequest *request, bool ignore);

// Sets the number of likeliest tokens, at most 100, to return in each token's place; log-probabilities come
// with all of them.
void realm_request_set_logprobs(RealmRequest *request, size_t likeliest);

// Guides the text to be JSON that this schema, a JSON text, allows. A schema that Realm cannot guarantee is
// refused when the request is used, with the keyword's name. Errors: `invalid-argument` for text that is not
// JSON.
bool realm_request_set_json_schema(RealmRequest *request, const char *schema, RealmError **error);

// Guides the text to be a JSON object.
void realm_request_set_json(RealmRequest *request);

// Guides the text to match a regular expression as a whole. Errors: `invalid-argument` for text that is not
// UTF-8.
bool realm_request_set_regex(RealmRequest *request, const char *expression, RealmError **error);

// Guides the text by a grammar, in llguidance's dialect of Lark or in llama.cpp's GBNF. Errors:
// `invalid-argument` for text that is not UTF-8.
bool realm_request_set_lark(RealmRequest *request, const char *grammar, RealmError **error);

// Lets the first `tokens` tokens of the prompt be computed once for all tenants that mark them too.
void realm_request_share_prefix(RealmRequest *request, size_t tokens);

// Lets the system message be computed once for all tenants that mark it too.
void realm_request_share_system(RealmRequest *request);

// Sets the LoRA adapter of this request, and a factor on what it adds: 1 for the adapter as it was trained.
// The request keeps what it needs of the adapter. NULL means no adapter.
void realm_request_set_adapter(RealmRequest *request, const RealmAdapter *adapter, float scale);

// Sets further input for the tenant's program, any JSON. Errors: `invalid-argument` for text that is not
// JSON.
bool realm_request_set_input(RealmRequest *request, const char *input, RealmError **error);

// Sets the source of drafts; by default the one that the model was loaded with.
void realm_request_set_speculation(RealmRequest *request, RealmSpeculation speculation);

// Adds a function that changes the logits before each token is chosen. It runs on a thread of the request's
// own: no other request waits for it. Takes ownership of `user_data`, even if it fails. Errors:
// `invalid-argument` for NULL.
bool realm_request_add_logits_processor(RealmRequest *request,
                                        RealmLogitsProcessor processor,
                                        void *user_data,
                                        RealmDrop drop,
                                        RealmError **error);

// Starts a runtime. `threads` threads compute, 0 for one for each core. `device` is `cpu`, `cuda`, `cuda:1`
// and so on; NULL means the first NVIDIA GPU, with other GPUs and the CPU for layers that do not fit there,
// or the CPU if there is no GPU that Realm can use. `cache_folder` is the folder of fetched models; NULL
// means the user's cache folder. Errors: `invalid-argument` for more than 1024 threads, `unsupported` for a
// device that the machine does not have.
RealmRuntime *realm_runtime_new(size_t threads, const char *device, const char *cache_folder, RealmError **error);

// Same as `realm_runtime_new`, with the key that signs saved sequences: at least 32 random bytes, to be kept
// secret. Runtimes with the same key restore each other's sequences. The key is copied. Errors: also
// `invalid-argument` for fewer than 32 bytes.
RealmRuntime *realm_runtime_new_keyed(size_t threads,
                                      const char *device,
                                      const char *cache_folder,
                                      const uint8_t *key,
                                      size_t key_len,
                                      RealmError **error);

// Connects to a server, `realm serve`, whose models are then used as those of this process are. `url` is
// `http://…` or `https://…`; `key` is one of the server's, or NULL. `realm_runtime_load_model` finds a model
// by the name that the server has for it. What stays at the server, such as options of loading, limits of
// tenants and programs, is the error `unsupported`. Blocks until the server has answered. Errors:
// `invalid-argument` for another kind of URL, `io` if the server can't be reached, `denied` if it does not
// know the key.
RealmRuntime *realm_runtime_connect(const char *url, const char *key, RealmError **error);

// Returns true if a server computes; false for NULL.
bool realm_runtime_is_remote(const RealmRuntime *runtime);

// Frees a runtime. Models that it loaded stay until their last handle is freed.
void realm_runtime_free(RealmRuntime *runtime);

// Loads a model: a path to a GGUF file, a catalog name such as `smollm2-135m`, or `hf:owner/repo/file.gguf`.
// A model that is not on disk yet is fetched first. `options` may be NULL, and stay the caller's. Blocks.
// Errors: `not-found` for an unknown name, `io` if fetching fails, `invalid-model` or `unsupported` for a
// file that Realm cannot run.
RealmModel *realm_runtime_load_model(const RealmRuntime *runtime,
                                     const char *model,
                                     const RealmLoadOptions *options,
                                     RealmError **error);

// Fetches a model, unless it is on disk, without loading it. Returns its file's path, for `realm_free`.
// `on_progress` may be NULL; `user_data` stays the caller's. Blocks. Errors: same as
// `realm_runtime_load_model`.
char *realm_runtime_pull(const RealmRuntime *runtime,
                         const char *model,
                         RealmOnProgress on_progress,
                         void *user_data,
                         RealmError **error);

// Deletes a model's files from the cache folder, and writes the number of freed bytes. Errors:
// `invalid-argument` for a path, `io`.
bool realm_runtime_remove(const RealmRuntime *runtime, const char *model, uint64_t *freed, RealmError **error);

// Lists models. Errors: `io` if the cache folder cannot be read.
RealmModelList *realm_runtime_models(const RealmRuntime *runtime, RealmError **error);

// Returns the number of entries.
size_t realm_model_list_len(const RealmModelList *list);

// Writes entry `index` to `entry`; false if `index` is out of range.
bool realm_model_list_get(const RealmModelList *list, size_t index, RealmModelEntry *entry);

// Frees a list.
void realm_model_list_free(RealmModelList *list);

// Returns the metrics of all loaded models, in the text format that Prometheus reads, for `realm_free`. NULL
// only for NULL.
char *realm_runtime_prometheus(const RealmRuntime *runtime);

// Reads a GGUF file's header without loading the file. Errors: `io`, and `invalid-model` or `unsupported`
// for a file that Realm cannot run.
RealmFileInfo *realm_inspect(const char *path, RealmError **error);

// Writes the file's summary to `summary`; false for NULL.
bool realm_file_info_summary(const RealmFileInfo *info, RealmFileSummary *summary);

// Writes tensor type `index` to `tensor_type`, the one with the most bytes first; false if `index` is out of
// range.
bool realm_file_info_tensor_type(const RealmFileInfo *info, size_t index, RealmTensorType *tensor_type);

// Frees a file's info.
void realm_file_info_free(RealmFileInfo *info);

// Loads only a model's tokenizer. Blocks. Errors: same as `realm_runtime_load_model`.
RealmTokenizer *realm_runtime_load_tokenizer(const RealmRuntime *runtime, const char *model, RealmError **error);

// Compiles a program from a file: a WebAssembly component, or a core module from a WebAssembly target of
// `cargo build`. Compiled code is kept in the cache folder. Blocks, for seconds if the program is large and
// new. Errors: `io`, `invalid-program`.
RealmProgram *realm_runtime_load_program(const RealmRuntime *runtime, const char *path, RealmError **error);

// Same as `realm_runtime_load_program`, from `len` bytes. Errors: `invalid-program`.
RealmProgram *realm_runtime_compile_program(const RealmRuntime *runtime,
                                            const uint8_t *wasm,
                                            size_t len,
                                            RealmError **error);

// Adds tokens at the end; the next forward pass computes them. Errors: `invalid-argument` for tokens outside
// the vocabulary, `limit-exceeded` beyond the context; no token is added then.
bool realm_sequence_append(RealmSequence *sequence, const uint32_t *tokens, size_t len, RealmError **error);

// Computes the tokens appended since the last forward pass, or the last token again if there are none.
// Shares batches with other requests. Blocks. Errors: `invalid-argument` for an empty sequence, and the
// error that ended the forward pass early.
RealmForwarded *realm_sequence_forward(RealmSequence *sequence, RealmOutput output, RealmError **error);

// Returns the sequence's tokens; their number goes to `len`. They belong to the sequence until it changes.
const uint32_t *realm_sequence_tokens(const RealmSequence *sequence, size_t *len);

// Returns the longest length that the sequence may have, in tokens.
size_t realm_sequence_context_length(const RealmSequence *sequence);

// Creates another sequence with the same tokens. Both share the computed part until they differ. Errors:
// `internal`.
RealmSequence *realm_sequence_fork(const RealmSequence *sequence, RealmError **error);

// Drops the tokens from index `len` on. Errors: `internal`.
bool realm_sequence_truncate(RealmSequence *sequence, size_t len, RealmError **error);

// Returns tokens, keys and values as bytes, for `realm_model_restore_sequence` with the same model on the
// same kind of device, and then for `realm_free`. Their number goes to `len`. Tokens appended after the last
// forward pass are not included. Blocks. Errors: `internal`.
uint8_t *realm_sequence_save(const RealmSequence *sequence, size_t *len, RealmError **error);

// Frees a sequence and its part of the KV cache.
void realm_sequence_free(RealmSequence *sequence);

// Returns the numbers, row by row, without a copy: `[rows, width]`. They belong to the results. The number
// of rows goes to `rows`, that of numbers in a row to `width`.
const float *realm_forwarded_values(const RealmForwarded *forwarded, size_t *rows, size_t *width);

// Returns the number of the sequence's tokens that were found in the prefix cache for this forward pass.
size_t realm_forwarded_cached(const RealmForwarded *forwarded);

// Frees results.
void realm_forwarded_free(RealmForwarded *forwarded);

// Creates a tenant with limits of its own; `limits` may be NULL for the default ones, and stay the caller's.
// Two tenants of the same name share nothing. Errors: `invalid-argument` for a limit that is out of range.
RealmTenant *realm_runtime_tenant(const RealmRuntime *runtime,
                                  const char *name,
                                  const RealmLimits *limits,
                                  RealmError **error);

// Frees a tenant's handle.
void realm_tenant_free(RealmTenant *tenant);

// Returns the tenant's name. Belongs to the tenant.
const char *realm_tenant_name(const RealmTenant *tenant);

// Returns the tenant's limits; the caller frees them. NULL only for NULL.
RealmLimits *realm_tenant_limits(const RealmTenant *tenant);

// Changes the limits, from the next step on. Requests that run or wait stay. Errors: `invalid-argument` for
// a limit that is out of range; the old ones then stay.
bool realm_tenant_set_limits(const RealmTenant *tenant, const RealmLimits *limits, RealmError **error);

// Returns a new handle of a loaded model as this tenant sees it: requests to it count against the tenant's
// limits. Errors: `limit-exceeded` for a model that the tenant may not use.
RealmModel *realm_tenant_model(const RealmTenant *tenant, const RealmModel *model, RealmError **error);

// Compiles a program that the tenant brought, a WebAssembly component or module in `len` bytes, on the
// tenant's account: programs of several tenants are compiled in fair turns by their weights, and the
// compiled code is the tenant's memory until the program's handle is freed and no tenant uses it. Blocks,
// for seconds if the program is large and new. Errors: `invalid-program`, `limit-exceeded`, `overloaded`.
RealmProgram *realm_tenant_compile_program(const RealmTenant *tenant,
                                           const uint8_t *wasm,
                                           size_t len,
                                           RealmError **error);

// Sets the program that answers the tenant's requests from now on; NULL returns to Realm's own generation.
// Running requests finish with the program they started with. The tenant keeps what it needs of the program.
void realm_tenant_set_program(const RealmTenant *tenant, const RealmProgram *program);

// Returns whether a program answers the tenant's requests.
bool realm_tenant_has_program(const RealmTenant *tenant);

// Adds a program, by a name, that the tenant's other programs may run. Replaces an earlier program of that
// name. Errors: `invalid-argument` for text that is not UTF-8.
bool realm_tenant_add_program(const RealmTenant *tenant,
                              const char *name,
                              const RealmProgram *program,
                              RealmError **error);

// Removes a program that others may run; returns whether there was one of that name.
bool realm_tenant_remove_program(const RealmTenant *tenant, const char *name);

// Sets what the tenant's programs may do besides asking models, from the next request on. `grants` stay the
// caller's; NULL means nothing.
void realm_tenant_set_grants(const RealmTenant *tenant, const RealmGrants *grants);

// Returns the number of requests that run now, over all models.
size_t realm_tenant_running(const RealmTenant *tenant);

// Returns the number of requests that wait now, over all models.
size_t realm_tenant_waiting(const RealmTenant *tenant);

// Returns the memory of one kind that the tenant holds now, in bytes, over all models; 0 for NULL.
uint64_t realm_tenant_memory(const RealmTenant *tenant, RealmMemoryKind kind);

// Returns the memory of all kinds that the tenant holds now, in bytes, over all models; the limit `memory`
// bounds it. 0 for NULL.
uint64_t realm_tenant_total_memory(const RealmTenant *tenant);

// Writes the tenant's counters to `served`, over all models that are loaded now; false for NULL.
bool realm_tenant_metrics(const RealmTenant *tenant, RealmServed *served);

// Writes facts about the tokenizer to `info`; false for NULL.
bool realm_tokenizer_info(const RealmTokenizer *tokenizer, RealmTokenizerInfo *info);

// Encodes a text into token ids as `realm_model_encode` does, for `realm_free`. Errors: `invalid-argument`
// for text that is not UTF-8.
uint32_t *realm_tokenizer_encode(const RealmTokenizer *tokenizer,
                                 const char *text,
                                 bool special,
                                 bool boundaries,
                                 size_t *len,
                                 RealmError **error);

// Returns the bytes of tokens, for `realm_free`: they need not be whole characters. With `special`, control
// tokens are spelled. The number of bytes goes to `len`. Errors: `invalid-argument` for an id outside the
// vocabulary.
uint8_t *realm_tokenizer_bytes(const RealmTokenizer *tokenizer,
                               const uint32_t *tokens,
                               size_t tokens_len,
                               bool special,
                               size_t *len,
                               RealmError **error);

// Returns the id of the token with exactly this spelling, including special ones; UINT32_MAX if there is
// none.
uint32_t realm_tokenizer_token_id(const RealmTokenizer *tokenizer, const char *spelled);

// Frees a tokenizer.
void realm_tokenizer_free(RealmTokenizer *tokenizer);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* REALM_H */
