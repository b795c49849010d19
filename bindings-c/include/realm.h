/* Realm for C and C++: many isolated tenants' AI programs on one copy of a model's weights.
 * Generated from bindings-c/src; do not edit. */

#ifndef REALM_H
#define REALM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How all of this works
 *
 * Objects. Every type that a function returns a pointer to, is opaque and belongs to the caller, who gives it back with
 * the type's own `_free` function, once; NULL is ignored. Objects keep what they need: a model may be freed while its
 * generations run. Pointers that a getter returns belong to the object and are good as long as it is.
 *
 * Memory. Arrays and texts that a function returns without `const` come from `malloc`: `realm_free` or `free`.
 *
 * Texts are UTF-8 and end with a zero. Where a text may hold zeros itself, its length comes beside it.
 *
 * Errors. A function that can fail has `RealmError **error` as its last parameter and says by its result that it failed
 * (NULL or false). Then `*error` is an error that the caller frees, unless `error` is NULL. Otherwise `*error` is not
 * touched. NULL where an object or a text is needed is the error `invalid-argument`; in functions that can't fail it does
 * nothing, or gives nothing. So it is with a number that is none of an enum's.
 *
 * Threads. Runtimes, models, adapters, programs, tenants, tokenizers, and generations may be used by any number of
 * threads at once. Everything else (requests, options, limits, grants, sequences, results) by one at a time, whichever
 * that is. Freeing an object while another thread is inside a function with it is never allowed. After `fork` only the
 * parent may go on using Realm.
 *
 * Callbacks. What is called on the thread that called Realm, may throw C++ exceptions where that is said, and only there. All
 * others are REALM_NOEXCEPT: from C++17 on a compiler refuses functions that may throw. Callbacks may call Realm. Where a
 * `drop` comes with `user_data`, it is called once, from any thread, when Realm will not use `user_data` any more; both may
 * be NULL. */

#if defined(__cplusplus) && (__cplusplus >= 201703L || (defined(_MSVC_LANG) && _MSVC_LANG >= 201703L))
#define REALM_NOEXCEPT noexcept
#else
#define REALM_NOEXCEPT
#endif

/* The version of this interface. Within a major version nothing is removed or changes its meaning. */
#define REALM_ABI_MAJOR 0
#define REALM_ABI_MINOR 1

/* No limit, and no number. */
#define REALM_NONE UINT64_MAX

#ifdef __cplusplus
extern "C" {
#endif

struct RealmChunk;
struct RealmToolCall;

/* How bad a line of a log is. */
typedef enum {
    REALM_LEVEL_ERROR = 0,
    REALM_LEVEL_WARN = 1,
    REALM_LEVEL_INFO = 2,
    REALM_LEVEL_DEBUG = 3,
    REALM_LEVEL_TRACE = 4,
} RealmLevel;

/* Gives `user_data` back. */
typedef void (*RealmDrop)(void *user_data) REALM_NOEXCEPT;

/* Gets a chunk, which is good until it returns. Runs on the thread that called `realm_model_each`, and may throw. Returns
 * whether to go on. */
typedef bool (*RealmOnChunk)(void *user_data, const struct RealmChunk *chunk);

/* Told how a load or a pull goes, on the thread that called: the stage (`waiting`, `fetching`, `failed`, `fetched`,
 * `loading`), a file or a source, and bytes; `total` is REALM_NONE where it is not known. */
typedef void (*RealmOnProgress)(void *user_data, const char *stage, const char *what, uint64_t done,
                                uint64_t total) REALM_NOEXCEPT;

/* A line of a log, from any thread. `from` is the tenant of a program's line, or the part of Realm. */
typedef void (*RealmOnLog)(void *user_data, RealmLevel level, const char *from, const char *message) REALM_NOEXCEPT;

/* A tool of the application that a program calls with a JSON text. The call has to be answered exactly once, by
 * `realm_tool_call_answer` or `realm_tool_call_fail`: at once or later, from any thread. Runs on threads that other programs
 * wait for, so what takes long is done elsewhere. */
typedef void (*RealmTool)(void *user_data, const char *arguments, struct RealmToolCall *call) REALM_NOEXCEPT;

/* Changes the logits of the next token, one for each token of the vocabulary, in place; -INFINITY rules a token out.
 * `tokens` are those so far, the prompt's included. Both arrays are good until it returns. Runs on a thread of the request's
 * own. Returns NULL, or what went wrong, a text that is copied; that ends the request. */
typedef const char *(*RealmLogitsProcessor)(void *user_data, const uint32_t *tokens, size_t tokens_len, float *logits,
                                            size_t logits_len) REALM_NOEXCEPT;

#ifdef __cplusplus
}
#endif


// What happens when a conversation does not fit in the context any more.
typedef enum {
    // The oldest turns are dropped, a question with all that answered it; system messages stay.
    REALM_OVERFLOW_DROP_OLDEST,
    // The question is refused with `limit-exceeded`.
    REALM_OVERFLOW_REFUSE,
} RealmOverflow;

// What kind of failure. Stable; new ones may come.
typedef enum {
    // A model's file is malformed or contradicts itself.
    REALM_ERROR_CODE_INVALID_MODEL = 1,
    // An adapter's file is malformed, contradicts itself or does not fit the model.
    REALM_ERROR_CODE_INVALID_ADAPTER = 2,
    // An argument means nothing.
    REALM_ERROR_CODE_INVALID_ARGUMENT = 3,
    // A request is larger than what it or its tenant was given.
    REALM_ERROR_CODE_LIMIT_EXCEEDED = 4,
    // Too many requests wait already.
    REALM_ERROR_CODE_OVERLOADED = 5,
    // Realm does not do that.
    REALM_ERROR_CODE_UNSUPPORTED = 6,
    // No such model.
    REALM_ERROR_CODE_NOT_FOUND = 7,
    // Reading, writing or fetching failed.
    REALM_ERROR_CODE_IO = 8,
    // A program is no WebAssembly that Realm can run.
    REALM_ERROR_CODE_INVALID_PROGRAM = 9,
    // A program did what WebAssembly forbids, or panicked.
    REALM_ERROR_CODE_TRAP = 10,
    // A program, or a tool that it called, says that it failed.
    REALM_ERROR_CODE_FAILED = 11,
    // A program asked for what its tenant was not granted.
    REALM_ERROR_CODE_DENIED = 12,
    // The request was cancelled.
    REALM_ERROR_CODE_CANCELLED = 13,
    // Realm itself failed.
    REALM_ERROR_CODE_INTERNAL = 14,
} RealmErrorCode;

// Why a generation ended.
typedef enum {
    // The model said so with an end token, a stop string came, or the grammar is complete.
    REALM_FINISH_REASON_STOP,
    // The request's `max_tokens`, or the end of the context.
    REALM_FINISH_REASON_LENGTH,
    // As `REALM_FINISH_REASON_STOP`, after calls of tools: the model waits for what they return.
    REALM_FINISH_REASON_TOOL_CALLS,
} RealmFinishReason;

// A limit that is a number.
typedef enum {
    // Requests that run at once; others wait.
    REALM_LIMIT_MAX_CONCURRENT,
    // Requests that wait for a place; one more is refused with `limit-exceeded`. 1024 by default.
    REALM_LIMIT_MAX_QUEUED,
    // Tokens in the KV cache of one model over all running requests.
    REALM_LIMIT_KV_TOKENS,
    // Tokens computed a minute, prompts and generated ones, over all models. A tenant who used them up waits.
    REALM_LIMIT_TOKENS_PER_MINUTE,
    // Milliseconds from a request's start to its end, waiting included; then it ends with `limit-exceeded`.
    REALM_LIMIT_REQUEST_TIMEOUT_MS,
    // Bytes that one run of a program may use. 64 MiB by default.
    REALM_LIMIT_PROGRAM_MEMORY,
    // Milliseconds that one run of a program computes itself. 10 s by default.
    REALM_LIMIT_PROGRAM_CPU_TIME_MS,
    // Handles that one run of a program holds at once. 1024 by default.
    REALM_LIMIT_PROGRAM_HANDLES,
    // Bytes of text that one run of a program sends. 16 MiB by default.
    REALM_LIMIT_PROGRAM_OUTPUT,
    // Bytes of memory that the tenant causes at once, of every kind. 1 GiB by default.
    REALM_LIMIT_MEMORY,
} RealmLimit;

// A limit that is a list of names.
typedef enum {
    // Models that the tenant may use.
    REALM_NAME_LIMIT_MODELS,
    // Adapters that the tenant may use.
    REALM_NAME_LIMIT_ADAPTERS,
} RealmNameLimit;

// How hidden states become an embedding.
typedef enum {
    // As the model's file says.
    REALM_POOLING_DEFAULT,
    // Their mean.
    REALM_POOLING_MEAN,
    // That of the last token.
    REALM_POOLING_LAST,
    // That of the first token.
    REALM_POOLING_CLS,
} RealmPooling;

// What is measured as a distribution.
typedef enum {
    // Rows of a forward pass.
    REALM_HISTOGRAM_BATCH_ROWS,
    // Sequences in a forward pass.
    REALM_HISTOGRAM_BATCH_SEQUENCES,
    // Seconds of a step.
    REALM_HISTOGRAM_STEP_SECONDS,
    // Seconds that requests waited for a place in the batch.
    REALM_HISTOGRAM_QUEUE_SECONDS,
    // Seconds from a request's arrival to its first token.
    REALM_HISTOGRAM_FIRST_TOKEN_SECONDS,
    // Seconds between a request's tokens.
    REALM_HISTOGRAM_INTER_TOKEN_SECONDS,
} RealmHistogram;

// Which level of the contract a program is written at.
typedef enum {
    // It answers requests.
    REALM_CONTRACT_PROGRAM,
    // It is asked at each token.
    REALM_CONTRACT_POLICY,
    // It is a core module that answers requests with plain functions.
    REALM_CONTRACT_MODULE,
} RealmContract;

// Where drafts come from: tokens that are computed before it is certain that they are part of the text. The text is the same
// with and without.
typedef enum {
    // From wherever there are any.
    REALM_SPECULATION_AUTO,
    // None.
    REALM_SPECULATION_OFF,
    // What followed the last tokens earlier in the text.
    REALM_SPECULATION_LOOKUP,
    // The draft model alone.
    REALM_SPECULATION_DRAFT,
} RealmSpeculation;

// How the KV cache holds a number.
typedef enum {
    // 32-bit floats: exact, twice the memory.
    REALM_CACHE_TYPE_F32,
    // 16-bit floats.
    REALM_CACHE_TYPE_F16,
    // 8-bit integers with a common factor for each 32.
    REALM_CACHE_TYPE_Q8_0,
} RealmCacheType;

// What the cache folder has of a model.
typedef enum {
    // Nothing.
    REALM_MODEL_STATE_ABSENT,
    // A part; the next pull goes on from it.
    REALM_MODEL_STATE_PARTIAL,
    // The whole file.
    REALM_MODEL_STATE_PRESENT,
} RealmModelState;

// Which results of a forward are wanted.
typedef enum {
    // Only keys and values: what comes later wants the results.
    REALM_OUTPUT_NOTHING,
    // The logits after the last token, `[vocabulary]`.
    REALM_OUTPUT_LAST_LOGITS,
    // The logits after every new token, `[new tokens, vocabulary]`.
    REALM_OUTPUT_LOGITS,
    // The last hidden state of every new token, `[new tokens, hidden]`.
    REALM_OUTPUT_HIDDEN,
} RealmOutput;

// What memory is for.
typedef enum {
    // Requests that wait or run: prompts, stop strings, biases, grammars, fields.
    REALM_MEMORY_KIND_REQUESTS,
    // Chunks and answers that no reader has taken yet.
    REALM_MEMORY_KIND_RESULTS,
    // Sequences: their tokens and what the engine knows of them; also snapshots while they are taken or restored.
    REALM_MEMORY_KIND_SEQUENCES,
    // Runs of programs: instances, linear memories, tables and stacks.
    REALM_MEMORY_KIND_PROGRAMS,
    // What programs hold handles of: logits, tensors, caches, samplers, grammars.
    REALM_MEMORY_KIND_HANDLES,
    // Strings and lists on their way between a program and the host.
    REALM_MEMORY_KIND_TRANSFERS,
    // Stores of programs in memory, and copies of what those on disk keep.
    REALM_MEMORY_KIND_STORES,
    // Compiled code of programs, the bytes of those that are being compiled, and compiled grammars.
    REALM_MEMORY_KIND_CODE,
    // Lines of programs' logs that the application has not taken yet.
    REALM_MEMORY_KIND_LOGS,
} RealmMemoryKind;

// A LoRA adapter on a model. Unloaded when the last handle and the last request that uses it have gone.
typedef struct RealmAdapter RealmAdapter;

// What a chat session has beside the options of its request.
typedef struct RealmChatOptions RealmChatOptions;

// A conversation with a model: it keeps the messages, runs the tools that the model calls, and makes room when the context is full.
// It answers one question at a time; one that fails or is cancelled leaves the conversation as it was before.
typedef struct RealmChatSession RealmChatSession;

// A piece of a generation.
typedef struct RealmChunk RealmChunk;

// The whole answer.
typedef struct RealmCompletion RealmCompletion;

// What went wrong.
typedef struct RealmError RealmError;

// What a model's file says about itself.
typedef struct RealmFileInfo RealmFileInfo;

// The results of a forward.
typedef struct RealmForwarded RealmForwarded;

// A running request. Freeing it cancels the request and frees its part of the KV cache.
typedef struct RealmGeneration RealmGeneration;

// What a tenant's programs may do beside asking models. By default nothing.
typedef struct RealmGrants RealmGrants;

// What a tenant may use at most.
typedef struct RealmLimits RealmLimits;

// How a model is loaded.
typedef struct RealmLoadOptions RealmLoadOptions;

// A reading of what a model has done and how it stands.
typedef struct RealmMetrics RealmMetrics;

// A loaded model, as one tenant sees it. Handles are cheap and share everything; the weights go when the last handle and the
// last generation have gone.
typedef struct RealmModel RealmModel;

// The models that the catalog and the cache folder have.
typedef struct RealmModelList RealmModelList;

// A compiled WebAssembly program; any number of tenants may have it.
typedef struct RealmProgram RealmProgram;

// A prompt and how to go on from it. Using it for a generation leaves it as it is, so it can be used again.
typedef struct RealmRequest RealmRequest;

// The runtime: owns the devices and loads models. One per process is normal.
typedef struct RealmRuntime RealmRuntime;

// What a model says of each token of a text.
typedef struct RealmScores RealmScores;

// A token sequence with its KV cache. While it rests its part of the cache may be given to others; it is computed again when it is
// needed.
typedef struct RealmSequence RealmSequence;

// An identity with limits that hold over all models it uses. Goes when its last handle, the last model as it sees it, and its last
// request have gone.
typedef struct RealmTenant RealmTenant;

// A tokenizer: a model's, or one that was loaded alone.
typedef struct RealmTokenizer RealmTokenizer;

// A program that waits for a tool's answer.
typedef struct RealmToolCall RealmToolCall;

// A token and the natural logarithm of its probability.
typedef struct {
    // The token.
    uint32_t id;
    // In nats.
    float logprob;
} RealmTokenLogprob;

// A generated token.
typedef struct {
    // Its id.
    uint32_t id;
    // Its log-probability; not a number where the request did not ask for it.
    float logprob;
    // The likeliest tokens in its place, where the request asked for them. They belong to the chunk or completion.
    const RealmTokenLogprob *top;
    // How many there are.
    size_t top_len;
} RealmToken;

// A call of a tool that the model asks for. Realm calls nothing: run it, add the model's message with its `tool_calls` and one of
// the role `tool` with the result, and ask again. Texts end with a zero and belong to the chunk or completion.
typedef struct {
    // What the result names it by.
    const char *id;
    // The tool's name. Nothing but the prompt keeps a model from making one up.
    const char *name;
    // The arguments: a JSON object, which may not fit the tool's schema.
    const char *arguments;
} RealmFunctionCall;

// Tokens and seconds used, and why a generation ended.
typedef struct {
    // Why.
    RealmFinishReason reason;
    // Tokens of the prompt.
    size_t prompt_tokens;
    // Of these, how many were computed by an earlier request.
    size_t cached_tokens;
    // Tokens generated, an end token included.
    size_t generated_tokens;
    // Of these, how many belong to the model's thought.
    size_t reasoning_tokens;
    // Tokens that were computed on the chance that they would follow.
    size_t draft_tokens;
    // Of these, how many did.
    size_t accepted_tokens;
    // Seconds of waiting for a place in the batch.
    double queued_seconds;
    // Seconds from there to the first token.
    double prefill_seconds;
    // Seconds from the first token to the last.
    double decode_seconds;
} RealmFinish;

// What was done for one tenant, or for all. Counts are since the model was loaded.
typedef struct {
    // Tokens of prompts, computed.
    uint64_t prompt_tokens;
    // Tokens of prompts, found in the prefix cache.
    uint64_t cached_tokens;
    // Tokens generated.
    uint64_t generated_tokens;
    // Tokens computed once more, because their pages had been given to others.
    uint64_t recomputed_tokens;
    // Tokens computed on the chance that they follow.
    uint64_t draft_tokens;
    // Of these, those that turned out right.
    uint64_t accepted_tokens;
    // Requests that have their results.
    uint64_t finished;
    // Requests that nobody waited for any more.
    uint64_t cancelled;
    // Requests whose time was over.
    uint64_t timed_out;
    // Requests without a place in a queue.
    uint64_t refused;
    // Requests that failed.
    uint64_t failed;
    // How often a request gave its pages up for others.
    uint64_t preemptions;
    // Sequences in the batch now.
    uint64_t running;
    // Requests that wait now.
    uint64_t waiting;
    // Pages of the KV cache that sequences hold now.
    uint64_t kv_pages;
    // Requests that have had their first token.
    uint64_t first_tokens;
    // Seconds that they waited for it, added up.
    double first_token_seconds;
    // Seconds that requests waited for a place in the batch, added up.
    double queue_seconds;
} RealmServed;

// Pages of a KV cache.
typedef struct {
    // All there are.
    size_t total;
    // Held by sequences.
    size_t used;
    // Held by nobody, but remembered for prompts that begin alike.
    size_t remembered;
    // Empty.
    size_t free;
    // Bytes of one page.
    size_t page_bytes;
} RealmKvPages;

// What a model is. The texts belong to the model's handle.
typedef struct {
    // What it was loaded by.
    const char *reference;
    // `general.name` of the file; empty if it has none.
    const char *name;
    // Such as `llama`.
    const char *architecture;
    // Where it runs.
    const char *device;
    // Number of weights.
    uint64_t parameters;
    // Bytes of the file.
    uint64_t file_bytes;
    // Tokens in the vocabulary.
    size_t vocabulary;
    // Transformer layers.
    size_t layers;
    // Tokens that one request may have, prompt and generation together.
    size_t context_length;
    // Tokens that the model was trained for.
    size_t trained_context_length;
    // Numbers in a hidden state, and so in an embedding.
    size_t hidden;
    // How hidden states become an embedding.
    RealmPooling pooling;
    // Whether it has a chat template.
    bool chat_template;
} RealmModelInfo;

// What it says of one token.
typedef struct {
    // Log-probability, in nats, of the token that follows in the text; not a number after the last one.
    float next;
    // The likeliest tokens in its place, likeliest first. They belong to the scores.
    const RealmTokenLogprob *top;
    // How many there are.
    size_t top_len;
} RealmScore;

// What a program is.
typedef struct {
    // Its level.
    RealmContract contract;
    // Interfaces that it imports.
    size_t imports;
    // Interfaces that it exports.
    size_t exports;
    // Bytes of the component or module.
    size_t bytes;
} RealmProgramInfo;

// One of them. The texts belong to the list.
typedef struct {
    // Names it for `realm_runtime_load_model`.
    const char *reference;
    // Where its file is, or will be.
    const char *path;
    // What is there.
    RealmModelState state;
    // Bytes that are there.
    uint64_t bytes;
} RealmModelEntry;

// The numbers of a file's info. The texts belong to it.
typedef struct {
    // `general.name`; empty if the file has none.
    const char *name;
    // Such as `llama`.
    const char *architecture;
    // Number of weights.
    uint64_t parameters;
    // Transformer layers.
    size_t layers;
    // Tokens in the vocabulary.
    size_t vocabulary;
    // Tokens that the model was trained for.
    size_t trained_context_length;
    // Whether it has a chat template.
    bool chat_template;
    // Kinds of tensors, for `realm_file_info_tensor_type`.
    size_t tensor_types;
} RealmFileSummary;

// A kind of tensor in a file. The name belongs to the file's info.
typedef struct {
    // Such as `Q4_K`.
    const char *name;
    // Tensors of the type.
    size_t count;
    // Bytes that they take.
    uint64_t bytes;
} RealmTensorType;

// What a tokenizer has. Tokens that there are not are UINT32_MAX.
typedef struct {
    // Number of tokens.
    size_t vocabulary;
    // The begin-of-sequence token.
    uint32_t bos;
    // The end-of-sequence token.
    uint32_t eos;
    // Whether the model expects the begin token before a text.
    bool adds_bos;
    // The tokens that end a generation. They belong to the tokenizer.
    const uint32_t *end_tokens;
    // How many there are.
    size_t end_tokens_len;
} RealmTokenizerInfo;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the interface that the library has: the major version in the upper 16 bits, the minor one in the lower 16.
// A program can use a library of the same major version and of a minor version that is not below REALM_ABI_MINOR.
uint32_t realm_abi_version(void);

// The version of Realm, such as `0.1.0`. The text is never freed.
const char *realm_version(void);

// The options' defaults: no tools, 8 rounds of them, the oldest turns are dropped.
RealmChatOptions *realm_chat_options_new(void);

// Frees options.
void realm_chat_options_free(RealmChatOptions *options);

// Adds a tool that the session runs: its definition in OpenAI's format, a JSON object, and a function that gets the arguments and
// answers with JSON. What it answers or complains of the model gets to see. Takes `user_data` over, also where it fails. Errors:
// `invalid-argument` for no JSON, a definition without a name, or NULL.
bool realm_chat_options_add_tool(RealmChatOptions *options,
                                 const char *definition,
                                 RealmTool tool,
                                 void *user_data,
                                 RealmDrop drop,
                                 RealmError **error);

// How often the model may call tools for one question before it has to answer in words; 8 by default.
void realm_chat_options_set_max_rounds(RealmChatOptions *options, size_t rounds);

// What happens when the conversation does not fit in the context any more; the oldest turns are dropped by default.
void realm_chat_options_set_overflow(RealmChatOptions *options, RealmOverflow overflow);

// Starts a conversation. `request`, of `realm_request_chat`, is how it begins (a system message, or none) and how each answer is
// made; `options` may be NULL. Both are copied. Errors: `unsupported` for a model without a chat template, `invalid-argument` for
// another kind of request and for two tools of one name.
RealmChatSession *realm_chat_new(const RealmModel *model,
                                 const RealmRequest *request,
                                 const RealmChatOptions *options,
                                 RealmError **error);

// Frees a session. A question that is being answered goes on until its generation is freed.
void realm_chat_free(RealmChatSession *chat);

// Asks, and waits for the answer, whose text is that of all rounds of tools. Blocks. Errors: `invalid-argument` while another question
// is being answered, and as `realm_model_generate`.
RealmCompletion *realm_chat_ask(const RealmChatSession *chat,
                                const char *question,
                                RealmError **error);

// Asks, and returns at once; `realm_generation_next` gives the answer's chunks. Cancelling or freeing the generation takes the
// question back. Errors: as `realm_chat_ask`.
RealmGeneration *realm_chat_stream(const RealmChatSession *chat,
                                   const char *question,
                                   RealmError **error);

// The messages so far, a JSON array in OpenAI's format, for `realm_free`.
char *realm_chat_messages(const RealmChatSession *chat, RealmError **error);

// Goes on from other messages, a JSON array of objects. Errors: `invalid-argument` for anything else, and while a question is being
// answered.
bool realm_chat_set_messages(const RealmChatSession *chat,
                             const char *messages,
                             RealmError **error);

// Takes the last question and all that answered it back; `undone`, which may be NULL, gets whether there was one. Errors:
// `invalid-argument` while a question is being answered.
bool realm_chat_undo(const RealmChatSession *chat,
                     bool *undone,
                     RealmError **error);

// Forgets everything but the system messages at the beginning. Errors: `invalid-argument` while a question is being answered.
bool realm_chat_clear(const RealmChatSession *chat,
                      RealmError **error);

// How many messages were dropped to make room in the context, since the beginning or the last `realm_chat_clear`.
size_t realm_chat_dropped_messages(const RealmChatSession *chat);

// Whether a question is being answered.
bool realm_chat_is_busy(const RealmChatSession *chat);

// The kind of failure; `REALM_ERROR_CODE_INTERNAL` for NULL.
RealmErrorCode realm_error_code(const RealmError *error);

// The name of the kind of failure, the same in every language, such as `limit-exceeded`. Belongs to the error.
const char *realm_error_name(const RealmError *error);

// What was wrong and what would be right, for people. Belongs to the error.
const char *realm_error_message(const RealmError *error);

// Frees an error.
void realm_error_free(RealmError *error);

// Waits for the next chunk and writes it to `chunk`, for `realm_chunk_free`; NULL after the last one, and after a cancel. Any number
// of threads may wait; each chunk goes to one of them. Errors: what ended the request early.
bool realm_generation_next(const RealmGeneration *generation,
                           RealmChunk **chunk,
                           RealmError **error);

// Waits for the end and puts what was not read yet together. Errors: what ended the request early; `cancelled` after a cancel, or
// if everything was read before.
RealmCompletion *realm_generation_finish(const RealmGeneration *generation,
                                         RealmError **error);

// Ends the request at once and frees its part of the KV cache. Threads that wait for its chunks are told that there is none.
void realm_generation_cancel(const RealmGeneration *generation);

// Whether it was cancelled before it had ended.
bool realm_generation_is_cancelled(const RealmGeneration *generation);

// Frees a generation, and cancels the request if it has not ended. Threads that wait for its chunks are told that there is none.
void realm_generation_free(RealmGeneration *generation);

// New text, which may be empty while a character or a stop string is unfinished. Its length in bytes goes to `len`, which may be
// NULL. Belongs to the chunk.
const char *realm_chunk_text(const RealmChunk *chunk,
                             size_t *len);

// New text of the model's thought, which is not part of the chunk's text. Its length in bytes goes to `len`, which may be NULL.
// Belongs to the chunk.
const char *realm_chunk_reasoning(const RealmChunk *chunk,
                                  size_t *len);

// In the first chunk, what the request asked for and the model could only do in another way: the sentence `index`, which
// belongs to the chunk, or NULL if there are not so many.
const char *realm_chunk_warning(const RealmChunk *chunk,
                                size_t index);

// How many new tokens there are.
size_t realm_chunk_tokens(const RealmChunk *chunk);

// Writes one of the new tokens to `token`; false if there are not so many.
bool realm_chunk_token(const RealmChunk *chunk, size_t index, RealmToken *token);

// How many tools the model calls. Each call comes in one piece, and its spelling is not part of the text.
size_t realm_chunk_tool_calls(const RealmChunk *chunk);

// Writes one of the calls to `call`; false if there are not so many.
bool realm_chunk_tool_call(const RealmChunk *chunk, size_t index, RealmFunctionCall *call);

// Whether it is the last chunk; then writes to `finish`, which may be NULL, how the generation ended.
bool realm_chunk_finish(const RealmChunk *chunk, RealmFinish *finish);

// Frees a chunk of `realm_generation_next`.
void realm_chunk_free(RealmChunk *chunk);

// The text, without the stop string that ended it, without tool calls and without thoughts. Its length in bytes goes to `len`, which
// may be NULL. Belongs to the completion.
const char *realm_completion_text(const RealmCompletion *completion,
                                  size_t *len);

// What the model thought before its answer; empty if it did not. Its length in bytes goes to `len`, which may be NULL. Belongs to
// the completion.
const char *realm_completion_reasoning(const RealmCompletion *completion,
                                       size_t *len);

// What the request asked for and the model could only do in another way (that its chat template knows no tools, for example): the
// sentence `index`, which belongs to the completion, or NULL if there are not so many.
const char *realm_completion_warning(const RealmCompletion *completion,
                                     size_t index);

// How many tokens were generated, an end token included.
size_t realm_completion_tokens(const RealmCompletion *completion);

// Writes one of the tokens to `token`; false if there are not so many.
bool realm_completion_token(const RealmCompletion *completion, size_t index, RealmToken *token);

// How many tools the model calls.
size_t realm_completion_tool_calls(const RealmCompletion *completion);

// Writes one of the calls to `call`; false if there are not so many.
bool realm_completion_tool_call(const RealmCompletion *completion, size_t index, RealmFunctionCall *call);

// Writes to `finish` how the generation ended and what it used; false for NULL.
bool realm_completion_finish(const RealmCompletion *completion, RealmFinish *finish);

// Frees a completion.
void realm_completion_free(RealmCompletion *completion);

// Nothing, yet.
RealmGrants *realm_grants_new(void);

// Frees grants. Tenants that have them keep them.
void realm_grants_free(RealmGrants *grants);

// Programs may write to Realm's own log (`realm_set_log`).
void realm_grants_allow_log(RealmGrants *grants);

// Programs may write to a log of the caller's, which is called as that of `realm_set_log` is: on a thread of its own, soon after.
// No line is dropped: until it is called with them they are the tenant's memory, and while 1 MiB of them wait its programs do. Takes
// `user_data` over.
void realm_grants_allow_log_to(RealmGrants *grants,
                               RealmOnLog on_log,
                               void *user_data,
                               RealmDrop drop);

// Programs may read the time.
void realm_grants_allow_clock(RealmGrants *grants);

// Programs may have random numbers of the operating system's.
void realm_grants_allow_random(RealmGrants *grants);

// Programs may have random numbers, the same in each run.
void realm_grants_allow_random_seed(RealmGrants *grants, uint64_t seed);

// Programs may keep things between runs, in a folder of the tenant's own or, with NULL, in memory: entries of so many bytes
// together, which count in memory a key, a value and 128 bytes for each, and in a folder its file, in blocks of 4 KiB, and its name. Errors: `io` for a folder that can't be made or read.
bool realm_grants_allow_store(RealmGrants *grants,
                              const char *folder,
                              size_t quota,
                              RealmError **error);

// Programs may send HTTP requests to a host, such as `api.example.com`, `localhost:8080` or `*.example.com`. Errors:
// `invalid-argument` for no UTF-8.
bool realm_grants_allow_http(RealmGrants *grants, const char *host, RealmError **error);

// Programs may call a function of the application's by this name: each call has a thread of its own, and may answer later. Takes
// `user_data` over, also where it fails. Errors: `invalid-argument` for no UTF-8 or NULL.
bool realm_grants_allow_tool(RealmGrants *grants,
                             const char *name,
                             RealmTool tool,
                             void *user_data,
                             RealmDrop drop,
                             RealmError **error);

// Answers with a JSON text, which is copied, and ends the call. May be called from any thread.
void realm_tool_call_answer(RealmToolCall *call, const char *answer);

// Says that the tool failed, with a complaint for the program, which is copied, and ends the call. May be called from any thread.
void realm_tool_call_fail(RealmToolCall *call,
                          const char *complaint);

// The default limits.
RealmLimits *realm_limits_new(void);

// Frees limits.
void realm_limits_free(RealmLimits *limits);

// Share of the computation when there is more to do than can be done at once; 1 by default.
void realm_limits_set_weight(RealmLimits *limits, float weight);

// The weight.
float realm_limits_weight(const RealmLimits *limits);

// Sets a limit; REALM_NONE is no limit.
void realm_limits_set(RealmLimits *limits, RealmLimit limit, uint64_t value);

// A limit; REALM_NONE is no limit.
uint64_t realm_limits_get(const RealmLimits *limits, RealmLimit limit);

// Sets which models or adapters a tenant may use: `len` names, which are copied. `names` may be NULL where `len` is 0: then it may
// use none. Errors: `invalid-argument` for no UTF-8.
bool realm_limits_set_names(RealmLimits *limits,
                            RealmNameLimit limit,
                            const char *const *names,
                            size_t len,
                            RealmError **error);

// How many models or adapters the tenant may use; REALM_NONE if it may use all.
uint64_t realm_limits_names(const RealmLimits *limits, RealmNameLimit limit);

// One of the names; NULL if there are not so many. Belongs to the limits.
const char *realm_limits_name(const RealmLimits *limits, RealmNameLimit limit, size_t index);

// Runs `len` requests to their ends; `completions` has a place for each, in their order, and a window of them is under way at once,
// so that a list of any length never fills a queue. Without `errors`, which may be NULL, the first error ends the call, and no
// place is written. With it, where a request fails its completion is NULL and its error is at the same place of `errors`, where all
// others have NULL; both are to be freed. Blocks. Errors: as `realm_model_generate`.
bool realm_model_generate_many(const RealmModel *model,
                               const RealmRequest *const *requests,
                               size_t len,
                               RealmCompletion **completions,
                               RealmError **errors,
                               RealmError **error);

// Token ids of `len` texts, as `realm_model_encode` has them of one: those of all texts one after another, for `realm_free`. `lens`
// has a place for each text, which gets how many are its. Errors: `invalid-argument` for no UTF-8; it says which text it was.
uint32_t *realm_model_encode_many(const RealmModel *model,
                                  const char *const *texts,
                                  size_t len,
                                  bool special,
                                  bool boundaries,
                                  size_t *lens,
                                  RealmError **error);

// One vector for each of `len` texts, `[len, width]` in one array for `realm_free`; `width`, which may be NULL, gets the numbers
// in each. With `normalize` their lengths are 1. Thousands are fine. Blocks. Errors: as `realm_model_generate`; it says which
// text it was.
float *realm_model_embed_many(const RealmModel *model,
                              const char *const *texts,
                              size_t len,
                              RealmPooling pooling,
                              bool normalize,
                              size_t *width,
                              RealmError **error);

// Scores `len` texts as `realm_model_score` does; `texts[i]` has `lens[i]` tokens, and `scores` a place for each. Blocks. Errors:
// as `realm_model_generate`; it says which text it was, and no place is written.
bool realm_model_score_many(const RealmModel *model,
                            const uint32_t *const *texts,
                            const size_t *lens,
                            size_t len,
                            size_t top,
                            RealmScores **scores,
                            RealmError **error);

// Has every line of Realm's log up to a level go to `on_log`, for the whole process; NULL ends that. Realm itself prints nothing.
// `on_log` is called soon after, on a thread of its own for which nothing waits: it may take its time and call Realm. Where it is
// slower than the lines come some are dropped, and a line says how many. What waits when another one takes its place it still gets,
// before `drop`. Takes `user_data` over, also where it fails. Errors: `invalid-argument` if Rust code in this process has set up a log of
// its own.
bool realm_set_log(RealmLevel most,
                   RealmOnLog on_log,
                   void *user_data,
                   RealmDrop drop,
                   RealmError **error);

// Frees an array or a text that a function returned without `const`, as `free` does; for callers whose `free` is another
// library's.
void realm_free(void *memory);

// Writes what was done for all tenants to `served`; false for NULL.
bool realm_metrics_served(const RealmMetrics *metrics, RealmServed *served);

// Writes how the KV cache stands to `pages`; false for NULL.
bool realm_metrics_kv(const RealmMetrics *metrics, RealmKvPages *pages);

// Forward passes so far.
uint64_t realm_metrics_steps(const RealmMetrics *metrics);

// The value that a part `q` of all values, from 0 to 1, do not exceed; not a number where there are no values.
double realm_metrics_quantile(const RealmMetrics *metrics, RealmHistogram of, double q);

// How many tenants there are.
size_t realm_metrics_tenants(const RealmMetrics *metrics);

// Writes what was done for one of the tenants to `served`, and returns its name, which belongs to the metrics; NULL if there are not
// so many.
const char *realm_metrics_tenant(const RealmMetrics *metrics,
                                 size_t index,
                                 RealmServed *served);

// Frees metrics.
void realm_metrics_free(RealmMetrics *metrics);

// Frees a model's handle.
void realm_model_free(RealmModel *model);

// Another handle of the same model, as the same tenant sees it. NULL only for NULL.
RealmModel *realm_model_clone(const RealmModel *model);

// Writes what the model is to `info`; false for NULL.
bool realm_model_info(const RealmModel *model, RealmModelInfo *info);

// Token ids of a text, for `realm_free`; their number goes to `len`. With `special`, control tokens spelled in it become those
// tokens: only for text that no user wrote. With `boundaries`, the begin and end tokens are added where the model expects them.
// Errors: `invalid-argument` for no UTF-8.
uint32_t *realm_model_encode(const RealmModel *model,
                             const char *text,
                             bool special,
                             bool boundaries,
                             size_t *len,
                             RealmError **error);

// The text of tokens, for `realm_free`; control tokens are left out. Its length in bytes goes to `text_len`, which may be NULL.
// Errors: `invalid-argument` for an id outside the vocabulary.
char *realm_model_decode(const RealmModel *model,
                         const uint32_t *tokens,
                         size_t len,
                         size_t *text_len,
                         RealmError **error);

// A tokenizer of the model, for everything else; to be freed. NULL only for NULL.
RealmTokenizer *realm_model_tokenizer(const RealmModel *model);

// The prompt that the model's chat template makes of a request for a conversation, for `realm_free`. It is to look at: as text it
// no longer says which words are the template's and which a user's, so that control tokens in it can't be parsed safely;
// `realm_model_render_tokens` gives what the model reads. Errors: `unsupported` for a model without a template,
// `invalid-argument` with the template's own complaint and for another kind of request.
char *realm_model_render(const RealmModel *model,
                         const RealmRequest *request,
                         RealmError **error);

// Token ids of the prompt that the model's chat template makes of a request for a conversation, for `realm_free`; their number
// goes to `len`. A user's words in it are words, whatever they spell. Errors: as `realm_model_render`.
uint32_t *realm_model_render_tokens(const RealmModel *model,
                                    const RealmRequest *request,
                                    size_t *len,
                                    RealmError **error);

// Runs a request to its end. Blocks; `realm_model_stream` is for what somebody may want to cancel. Errors: `invalid-argument` and
// `limit-exceeded` say what about the request is wrong, or which limit of the tenant it reached; `overloaded` if too many requests
// wait already; and what ended the request early, such as `trap` of a tenant's program.
RealmCompletion *realm_model_generate(const RealmModel *model,
                                      const RealmRequest *request,
                                      RealmError **error);

// Starts a request and returns at once; `realm_generation_next` gives its chunks. Errors: as `realm_model_generate`.
RealmGeneration *realm_model_stream(const RealmModel *model, const RealmRequest *request, RealmError **error);

// Runs a request and calls `on_chunk` with each chunk, on this thread, until it returns false or throws, which cancels the request.
// Returns true at the end, also at one that `on_chunk` wanted. Blocks. Errors: as `realm_model_generate`.
bool realm_model_each(const RealmModel *model,
                      const RealmRequest *request,
                      RealmOnChunk on_chunk,
                      void *user_data,
                      RealmError **error);

// For each of some tokens the log-probability of the one that follows, and the `top` likeliest in its place. Blocks. Errors: as
// `realm_model_generate`.
RealmScores *realm_model_score(const RealmModel *model,
                               const uint32_t *tokens,
                               size_t len,
                               size_t top,
                               RealmError **error);

// How many tokens were scored.
size_t realm_scores_len(const RealmScores *scores);

// Writes one token's score to `score`; false if there are not so many.
bool realm_scores_get(const RealmScores *scores, size_t index, RealmScore *score);

// Frees scores.
void realm_scores_free(RealmScores *scores);

// The log-probability of each token of `continuation` after `prompt`, in nats, `[continuation_len]`, for `realm_free`; their
// sum is the log-likelihood. Blocks. Errors: as `realm_model_generate`, and `invalid-argument` if either is empty.
float *realm_model_log_likelihood(const RealmModel *model,
                                  const uint32_t *prompt,
                                  size_t prompt_len,
                                  const uint32_t *continuation,
                                  size_t continuation_len,
                                  RealmError **error);

// One vector of length 1 for a text, for `realm_free`, pooled as the model's file says. How many numbers it has goes to `len`.
// Blocks. Errors: as `realm_model_generate`.
float *realm_model_embed(const RealmModel *model,
                         const char *text,
                         size_t *len,
                         RealmError **error);

// The vector for tokens; with `normalize` its length is 1, so that a dot product is the cosine. For `realm_free`. Blocks. Errors:
// as `realm_model_generate`.
float *realm_model_embed_tokens(const RealmModel *model,
                                const uint32_t *tokens,
                                size_t tokens_len,
                                RealmPooling pooling,
                                bool normalize,
                                size_t *len,
                                RealmError **error);

// An empty sequence that the caller drives forward by forward. Errors: `internal`; with an adapter `invalid-argument` for another
// model's and `limit-exceeded` for one that the tenant may not use.
RealmSequence *realm_model_sequence(const RealmModel *model,
                                    RealmError **error);

// A sequence from what `realm_sequence_save` wrote, in this runtime or another one of the same key. Errors: `invalid-argument` for
// bytes that are not signed with the runtime's key or were altered since, and for those of another model, device, cache type or
// adapter; `limit-exceeded` if it is longer than the context.
RealmSequence *realm_model_restore_sequence(const RealmModel *model,
                                            const uint8_t *bytes,
                                            size_t len,
                                            RealmError **error);

// A sequence from what a runtime of another key saved. Its form is checked in full; whether its keys and values are what the model
// computes, nobody can know. The tenant's other requests don't use them. Errors: `invalid-argument` for anything but a saved sequence
// of this model, device, cache type and adapter; `limit-exceeded` if it is longer than the context.
RealmSequence *realm_model_restore_foreign_sequence(const RealmModel *model,
                                                    const uint8_t *bytes,
                                                    size_t len,
                                                    RealmError **error);

// What the model has done for all tenants since it was loaded, and how it stands. NULL only for NULL.
RealmMetrics *realm_model_metrics(const RealmModel *model);

// Loads a LoRA adapter while requests run: a GGUF file, or the folder that PEFT saves. Blocks. Errors: `io`, `invalid-adapter` for
// one that contradicts itself or does not fit the model, `unsupported` for kinds other than plain LoRA.
RealmAdapter *realm_model_load_adapter(const RealmModel *model,
                                       const char *path,
                                       RealmError **error);

// What it was loaded by, which tenants' limits name. Belongs to the adapter.
const char *realm_adapter_name(const RealmAdapter *adapter);

// Its largest rank.
size_t realm_adapter_rank(const RealmAdapter *adapter);

// Bytes that its matrices take.
size_t realm_adapter_bytes(const RealmAdapter *adapter);

// Frees an adapter's handle.
void realm_adapter_free(RealmAdapter *adapter);

// The same model with an adapter and a factor on what it adds, as a handle of its own: generations, scores, embeddings and
// sequences are the changed model's. NULL only for NULL.
RealmModel *realm_model_adapted(const RealmModel *model,
                                const RealmAdapter *adapter,
                                float scale);

// Writes what the program is to `info`; false for NULL.
bool realm_program_info(const RealmProgram *program, RealmProgramInfo *info);

// An interface that the program imports; NULL if there are not so many. Belongs to the program.
const char *realm_program_import(const RealmProgram *program, size_t index);

// An interface that the program exports; NULL if there are not so many. Belongs to the program.
const char *realm_program_export(const RealmProgram *program, size_t index);

// Frees a program's handle.
void realm_program_free(RealmProgram *program);

// A request to go on from a text as it is. Control tokens spelled in it are not parsed. Copies the text. Errors:
// `invalid-argument` for no UTF-8.
RealmRequest *realm_request_text(const char *prompt, RealmError **error);

// A request to answer a conversation, which `realm_request_add_message` fills; the model's chat template renders it.
RealmRequest *realm_request_chat(void);

// A request to go on from token ids, which are copied. Errors: `invalid-argument` for NULL with a length.
RealmRequest *realm_request_tokens(const uint32_t *tokens, size_t len, RealmError **error);

// Frees a request.
void realm_request_free(RealmRequest *request);

// Adds a message: `role` is `system`, `user`, `assistant`, `tool` or what else the template knows. Copies both. Errors:
// `invalid-argument` for no UTF-8 or another kind of request.
bool realm_request_add_message(RealmRequest *request,
                               const char *role,
                               const char *content,
                               RealmError **error);

// Adds a message with other fields than `role` and `content`, such as `tool_calls`: a JSON object in OpenAI's format. Errors: as
// above.
bool realm_request_add_message_json(RealmRequest *request,
                                    const char *message,
                                    RealmError **error);

// Adds a tool definition in OpenAI's format, a JSON object, for templates that know tools. With any, calls that the answer spells
// leave its text: see `realm_completion_tool_call`. Errors: `invalid-argument`.
bool realm_request_add_tool(RealmRequest *request,
                            const char *definition,
                            RealmError **error);

// Sets whether the model may, must or must not call tools: `auto`, `none`, `required`, or OpenAI's object with a function's name as
// JSON. One that has to be called makes the answer one call with arguments that the tool's schema allows. Errors:
// `invalid-argument`.
bool realm_request_set_tool_choice(RealmRequest *request,
                                   const char *choice,
                                   RealmError **error);

// Sets a further variable for the template, such as `enable_thinking`; its value is JSON. Errors: `invalid-argument`.
bool realm_request_set_template_variable(RealmRequest *request,
                                         const char *name,
                                         const char *value,
                                         RealmError **error);

// Whether a conversation's prompt ends with the start of the assistant's answer; by default it does, unless the last message is
// gone on with.
void realm_request_set_add_generation_prompt(RealmRequest *request,
                                             bool add);

// The answer goes on with the words of the conversation's last message, which the generated text does not repeat.
void realm_request_set_continue_final_message(RealmRequest *request, bool go_on);

// Control tokens spelled in a prompt that is a text, such as `<|im_start|>`, become those tokens: only for text that no user
// wrote.
void realm_request_set_special(RealmRequest *request,
                               bool special);

// Sets whether the model thinks before it answers, for templates that know `enable_thinking`; the template's choice unless set.
void realm_request_set_enable_thinking(RealmRequest *request,
                                       bool enable);

// Sets how much the model thinks, for templates that know `reasoning_effort`: mostly `low`, `medium` or `high`. Errors:
// `invalid-argument` for no UTF-8.
bool realm_request_set_reasoning_effort(RealmRequest *request,
                                        const char *effort,
                                        RealmError **error);

// Sets where the model's thought goes: `separate`, the default, for `realm_completion_reasoning` and `realm_chunk_reasoning`, or
// `inline` for the text, with its marks. Errors: `invalid-argument`.
bool realm_request_set_reasoning_format(RealmRequest *request,
                                        const char *format,
                                        RealmError **error);

// Divides the logits; 0 takes the likeliest token (greedy). 0.8 by default.
void realm_request_set_temperature(RealmRequest *request, float temperature);

// Keeps the `k` likeliest tokens; 0 keeps all. 40 by default.
void realm_request_set_top_k(RealmRequest *request, size_t k);

// Keeps the likeliest tokens whose probabilities together reach `p`; 1 keeps all. 0.95 by default.
void realm_request_set_top_p(RealmRequest *request, float p);

// Keeps tokens at least `p` times as likely as the likeliest; 0 keeps all. 0.05 by default.
void realm_request_set_min_p(RealmRequest *request, float p);

// Keeps the most typical tokens up to a probability of `p` together; 1, the default, keeps all.
void realm_request_set_typical_p(RealmRequest *request, float p);

// Divides positive and multiplies negative logits of tokens that occurred among the last `window`, prompt included; 1, the
// default, changes nothing.
void realm_request_set_repetition_penalty(RealmRequest *request,
                                          float penalty,
                                          size_t window);

// Subtracted from a token's logit for each time it was generated; 0 by default.
void realm_request_set_frequency_penalty(RealmRequest *request, float penalty);

// Subtracted once from the logit of a token that was generated; 0 by default.
void realm_request_set_presence_penalty(RealmRequest *request, float penalty);

// Adds to the logit of a token; another call for the same token replaces the bias.
void realm_request_set_logit_bias(RealmRequest *request, uint32_t token, float bias);

// Adds a token that never comes out.
void realm_request_ban_token(RealmRequest *request, uint32_t token);

// The same seed gives the same text; without one every request has another.
void realm_request_set_seed(RealmRequest *request, uint64_t seed);

// Tokens to generate at most; as many as the context holds by default.
void realm_request_set_max_tokens(RealmRequest *request, size_t tokens);

// Adds a string that ends the text and is not part of it. Errors: `invalid-argument` for no UTF-8.
bool realm_request_add_stop(RealmRequest *request, const char *stop, RealmError **error);

// Goes on after an end token.
void realm_request_set_ignore_eos(RealmRequest *request, bool ignore);

// Every token comes with its log-probability and the `likeliest` tokens in its place, at most 100.
void realm_request_set_logprobs(RealmRequest *request, size_t likeliest);

// The text will be JSON that this schema, a JSON text, allows. What a schema asks and Realm can't guarantee is refused by name
// when the request is used. Errors: `invalid-argument` for no JSON.
bool realm_request_set_json_schema(RealmRequest *request,
                                   const char *schema,
                                   RealmError **error);

// The text will be a JSON object.
void realm_request_set_json(RealmRequest *request);

// The text will be what a regular expression matches as a whole. Errors: `invalid-argument` for no UTF-8.
bool realm_request_set_regex(RealmRequest *request, const char *expression, RealmError **error);

// The text will be what a grammar allows, in llguidance's dialect of Lark or in llama.cpp's GBNF. Errors: `invalid-argument` for no UTF-8.
bool realm_request_set_lark(RealmRequest *request,
                            const char *grammar,
                            RealmError **error);

// So many tokens at the beginning of the prompt may be computed once for all tenants who mark them too.
void realm_request_share_prefix(RealmRequest *request, size_t tokens);

// What the system message makes up may be computed once for all tenants who mark it too.
void realm_request_share_system(RealmRequest *request);

// The LoRA adapter that changes the model for this request, and a factor on what it adds: 1 is the adapter as it was trained.
// The request keeps what it needs of the adapter. NULL stands for none.
void realm_request_set_adapter(RealmRequest *request,
                               const RealmAdapter *adapter,
                               float scale);

// What else the tenant's program is told: any JSON. Errors: `invalid-argument` for no JSON.
bool realm_request_set_input(RealmRequest *request, const char *input, RealmError **error);

// Where drafts come from; what the model was loaded with by default.
void realm_request_set_speculation(RealmRequest *request, RealmSpeculation speculation);

// Adds a function that changes the logits before each token is chosen. It runs on a thread of the request's own: no other request
// waits for it. Takes `user_data` over, also where it fails. Errors: `invalid-argument` for NULL.
bool realm_request_add_logits_processor(RealmRequest *request,
                                        RealmLogitsProcessor processor,
                                        void *user_data,
                                        RealmDrop drop,
                                        RealmError **error);

// Starts a runtime. `threads` compute, 0 stands for one for each core. `device` is `cpu`, `cuda`, `cuda:1` and so on or, as
// NULL, the first NVIDIA GPU that Realm can use and otherwise the CPU. `cache_folder` is where fetched models are kept; NULL is
// the user's cache folder. Errors: `invalid-argument` for too many threads, `unsupported` for a device that is not there.
RealmRuntime *realm_runtime_new(size_t threads,
                                const char *device,
                                const char *cache_folder,
                                RealmError **error);

// As `realm_runtime_new`, with the key that saved sequences are signed with: at least 32 random bytes, to be kept secret. Runtimes of
// one key restore each other's. The key is copied. Errors: also `invalid-argument` for fewer bytes.
RealmRuntime *realm_runtime_new_keyed(size_t threads,
                                      const char *device,
                                      const char *cache_folder,
                                      const uint8_t *key,
                                      size_t key_len,
                                      RealmError **error);

// Frees a runtime. What it loaded stays as long as somebody holds it.
void realm_runtime_free(RealmRuntime *runtime);

// Options that change nothing yet.
RealmLoadOptions *realm_load_options_new(void);

// Frees options.
void realm_load_options_free(RealmLoadOptions *options);

// Tokens that the KV cache holds over all requests.
void realm_load_options_set_kv_tokens(RealmLoadOptions *options, size_t tokens);

// Tokens that one request may have, prompt and generation together. By default what the model was trained for, or less where the
// KV cache holds less; with more, texts get worse from there on.
void realm_load_options_set_context_length(RealmLoadOptions *options,
                                           size_t tokens);

// Bytes of the KV cache.
void realm_load_options_set_kv_memory(RealmLoadOptions *options, uint64_t bytes);

// How the KV cache holds numbers. By default 32-bit floats on the CPU, 16-bit floats on a GPU.
void realm_load_options_set_cache_type(RealmLoadOptions *options, RealmCacheType cache_type);

// A chat template in place of the file's own: its source, or the name of a builtin one, such as `chatml`. Copies the text. Errors: `invalid-argument` for no UTF-8.
bool realm_load_options_set_chat_template(RealmLoadOptions *options,
                                          const char *template_,
                                          RealmError **error);

// Where drafts come from, for requests that do not say.
void realm_load_options_set_speculation(RealmLoadOptions *options, RealmSpeculation speculation);

// A smaller model of the same vocabulary that drafts for this one: a path, a catalog name or an `hf:` reference. Copies the
// text. Errors: `invalid-argument` for no UTF-8.
bool realm_load_options_set_draft_model(RealmLoadOptions *options,
                                        const char *model,
                                        RealmError **error);

// Requests that may wait over all tenants, 4096 by default; one more is refused as `overloaded`.
void realm_load_options_set_max_queued(RealmLoadOptions *options, size_t requests);

// Layers that GPUs compute: so many of the last ones and the output, and the CPU those before; by default as many as fit beside a
// KV cache. Means nothing where there is no GPU.
void realm_load_options_set_gpu_layers(RealmLoadOptions *options,
                                       size_t layers);

// Who is told how the load goes, on the thread that loads. Takes `user_data` over.
void realm_load_options_set_progress(RealmLoadOptions *options,
                                     RealmOnProgress on_progress,
                                     void *user_data,
                                     RealmDrop drop);

// Loads a model: a path to a GGUF file, a catalog name such as `smollm2-135m`, or `hf:owner/repo/file.gguf`. What is not there
// yet is fetched. `options` may be NULL, and stay the caller's. Blocks. Errors: `not-found` for a name that is none, `io` where
// fetching fails, `invalid-model` and `unsupported` for files that Realm can't run.
RealmModel *realm_runtime_load_model(const RealmRuntime *runtime,
                                     const char *model,
                                     const RealmLoadOptions *options,
                                     RealmError **error);

// Fetches a model without loading it, unless it is there, and returns its file's path, for `realm_free`. `on_progress` may be
// NULL; `user_data` stays the caller's. Blocks. Errors: as loading.
char *realm_runtime_pull(const RealmRuntime *runtime,
                         const char *model,
                         RealmOnProgress on_progress,
                         void *user_data,
                         RealmError **error);

// Deletes what the cache folder has of a model, and writes how many bytes that freed. Errors: `invalid-argument` for a path, `io`.
bool realm_runtime_remove(const RealmRuntime *runtime,
                          const char *model,
                          uint64_t *freed,
                          RealmError **error);

// Lists models. Errors: `io` where the cache folder can't be read.
RealmModelList *realm_runtime_models(const RealmRuntime *runtime, RealmError **error);

// How many there are.
size_t realm_model_list_len(const RealmModelList *list);

// Writes one of them to `entry`; false if there are not so many.
bool realm_model_list_get(const RealmModelList *list, size_t index, RealmModelEntry *entry);

// Frees a list.
void realm_model_list_free(RealmModelList *list);

// What all loaded models have done and how they stand, in the text format that Prometheus reads; for `realm_free`. NULL only for
// NULL.
char *realm_runtime_prometheus(const RealmRuntime *runtime);

// Reads a GGUF file's header without loading the file. Errors: `io`, and `invalid-model` or `unsupported` for files that Realm
// can't run.
RealmFileInfo *realm_inspect(const char *path,
                             RealmError **error);

// Writes what the file says to `summary`; false for NULL.
bool realm_file_info_summary(const RealmFileInfo *info, RealmFileSummary *summary);

// Writes one of the kinds of tensors to `tensor_type`, the one with the most bytes first; false if there are not so many.
bool realm_file_info_tensor_type(const RealmFileInfo *info,
                                 size_t index,
                                 RealmTensorType *tensor_type);

// Frees a file's info.
void realm_file_info_free(RealmFileInfo *info);

// Loads a model's tokenizer alone. Blocks. Errors: as loading a model.
RealmTokenizer *realm_runtime_load_tokenizer(const RealmRuntime *runtime, const char *model, RealmError **error);

// Compiles a program from a file: a WebAssembly component, or what a WebAssembly target of `cargo build` makes. Compiled code is
// kept in the cache folder. Blocks, for seconds if the program is large and new. Errors: `io`, `invalid-program`.
RealmProgram *realm_runtime_load_program(const RealmRuntime *runtime,
                                         const char *path,
                                         RealmError **error);

// As `realm_runtime_load_program`, from `len` bytes. Errors: `invalid-program`.
RealmProgram *realm_runtime_compile_program(const RealmRuntime *runtime,
                                            const uint8_t *wasm,
                                            size_t len,
                                            RealmError **error);

// Adds tokens at the end; the next forward computes them. Errors: `invalid-argument` for tokens outside the vocabulary,
// `limit-exceeded` beyond the context; then nothing was added.
bool realm_sequence_append(RealmSequence *sequence,
                           const uint32_t *tokens,
                           size_t len,
                           RealmError **error);

// Computes what was appended since the last forward, or the last token again if nothing was. Shares passes with everybody else's
// work. Blocks. Errors: `invalid-argument` for an empty sequence, and what ended the forward early.
RealmForwarded *realm_sequence_forward(RealmSequence *sequence,
                                       RealmOutput output,
                                       RealmError **error);

// Its tokens; their number goes to `len`. Belong to the sequence until it changes.
const uint32_t *realm_sequence_tokens(const RealmSequence *sequence, size_t *len);

// Tokens that it may have at most.
size_t realm_sequence_context_length(const RealmSequence *sequence);

// Another sequence with the same tokens. Both share what is computed until they differ. Errors: `internal`.
RealmSequence *realm_sequence_fork(const RealmSequence *sequence, RealmError **error);

// Drops the tokens from the `len`th on. Errors: `internal`.
bool realm_sequence_truncate(RealmSequence *sequence, size_t len, RealmError **error);

// Tokens, keys and values as bytes, for `realm_model_restore_sequence` with the same model on the same kind of device, and then for
// `realm_free`. Their number goes to `len`. What was appended after the last forward is not part of them. Blocks. Errors: `internal`.
uint8_t *realm_sequence_save(const RealmSequence *sequence,
                             size_t *len,
                             RealmError **error);

// Frees a sequence and its part of the KV cache.
void realm_sequence_free(RealmSequence *sequence);

// The numbers, row by row, without a copy: `[rows, width]`. Belong to the results. The number of rows goes to `rows`, that of
// numbers in a row to `width`.
const float *realm_forwarded_values(const RealmForwarded *forwarded,
                                    size_t *rows,
                                    size_t *width);

// How many of the sequence's tokens were found in the prefix cache for this forward.
size_t realm_forwarded_cached(const RealmForwarded *forwarded);

// Frees results.
void realm_forwarded_free(RealmForwarded *forwarded);

// A tenant with limits of its own; `limits` may be NULL for the default ones, and stay the caller's. Tenants of the same name share
// nothing. Errors: `invalid-argument` for limits that mean nothing.
RealmTenant *realm_runtime_tenant(const RealmRuntime *runtime,
                                  const char *name,
                                  const RealmLimits *limits,
                                  RealmError **error);

// Frees a tenant's handle.
void realm_tenant_free(RealmTenant *tenant);

// Its name. Belongs to the tenant.
const char *realm_tenant_name(const RealmTenant *tenant);

// What it may use, to be freed. NULL only for NULL.
RealmLimits *realm_tenant_limits(const RealmTenant *tenant);

// Changes what it may use, from the next step on. Requests that run or wait stay. Errors: `invalid-argument` for limits that mean
// nothing; then the old ones stay.
bool realm_tenant_set_limits(const RealmTenant *tenant,
                             const RealmLimits *limits,
                             RealmError **error);

// A loaded model as this tenant sees it, as a handle of its own: what is asked of it counts against the tenant's limits. Errors:
// `limit-exceeded` for a model that the tenant may not use.
RealmModel *realm_tenant_model(const RealmTenant *tenant,
                               const RealmModel *model,
                               RealmError **error);

// Compiles a program that the tenant brought, a WebAssembly component or module in `len` bytes, as work of the tenant: programs of
// several tenants are compiled in fair turns by their weights, and the compiled code is the tenant's memory until the program's
// handle is freed and nothing uses it. Blocks, for seconds if the program is large and new. Errors: `invalid-program`,
// `limit-exceeded`, `overloaded`.
RealmProgram *realm_tenant_compile_program(const RealmTenant *tenant,
                                           const uint8_t *wasm,
                                           size_t len,
                                           RealmError **error);

// From now on this program answers the tenant's requests; with NULL Realm generates as for everybody. What runs goes on with the
// program it started with. The tenant keeps what it needs of the program.
void realm_tenant_set_program(const RealmTenant *tenant,
                              const RealmProgram *program);

// Whether a program answers the tenant's requests.
bool realm_tenant_has_program(const RealmTenant *tenant);

// Gives the tenant a program that its other programs may run by this name, or another one for the name. Errors:
// `invalid-argument` for no UTF-8.
bool realm_tenant_add_program(const RealmTenant *tenant,
                              const char *name,
                              const RealmProgram *program,
                              RealmError **error);

// Takes a program away from those that others may run; says whether there was one.
bool realm_tenant_remove_program(const RealmTenant *tenant, const char *name);

// What the tenant's programs may do beside asking models, from the next request on. `grants` stay the caller's; NULL stands for
// nothing.
void realm_tenant_set_grants(const RealmTenant *tenant,
                             const RealmGrants *grants);

// Requests that run now, over all models.
size_t realm_tenant_running(const RealmTenant *tenant);

// Requests that wait now, over all models.
size_t realm_tenant_waiting(const RealmTenant *tenant);

// Bytes of memory of one kind that the tenant causes now, over all models; 0 for NULL.
uint64_t realm_tenant_memory(const RealmTenant *tenant, RealmMemoryKind kind);

// Bytes of memory of all kinds that the tenant causes now, over all models: what the limit `memory` bounds; 0 for NULL.
uint64_t realm_tenant_total_memory(const RealmTenant *tenant);

// Writes to `served` what was done for it, over all models that are loaded now; false for NULL.
bool realm_tenant_metrics(const RealmTenant *tenant, RealmServed *served);

// Writes what the tokenizer has to `info`; false for NULL.
bool realm_tokenizer_info(const RealmTokenizer *tokenizer, RealmTokenizerInfo *info);

// Token ids of a text, as `realm_model_encode`, for `realm_free`. Errors: `invalid-argument` for no UTF-8.
uint32_t *realm_tokenizer_encode(const RealmTokenizer *tokenizer,
                                 const char *text,
                                 bool special,
                                 bool boundaries,
                                 size_t *len,
                                 RealmError **error);

// The bytes that tokens stand for, for `realm_free`: a part of a text need not be whole characters. With `special`, control tokens
// are spelled. Their number goes to `len`. Errors: `invalid-argument` for an id outside the vocabulary.
uint8_t *realm_tokenizer_bytes(const RealmTokenizer *tokenizer,
                               const uint32_t *tokens,
                               size_t tokens_len,
                               bool special,
                               size_t *len,
                               RealmError **error);

// The id of the token that is spelled exactly so, a special one included; UINT32_MAX if there is none.
uint32_t realm_tokenizer_token_id(const RealmTokenizer *tokenizer, const char *spelled);

// Frees a tokenizer.
void realm_tokenizer_free(RealmTokenizer *tokenizer);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* REALM_H */
