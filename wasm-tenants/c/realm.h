/* Programs for tenants of Realm, in C.
 *
 * Short names for what a loop needs of the contract in core/sandbox/wit; all of it is in tenant_program.h, which
 * wit-bindgen writes at build time. A program defines
 *
 *     bool realm_run(realm_request *request, realm_finish *finish, realm_error *error)
 *
 * and returns true, or false with what went wrong in `error`. Functions here that can fail return false and fill `error`
 * in the same way, so that a caller passes its own on.
 *
 * Handles (model, text, sequence, logits) are things on Realm's side: each is dropped once, by the function for it. Lists and
 * strings that a function returns are the caller's, to be freed. An instance serves one request, so what is still held at
 * its end is freed with it.
 */
#ifndef REALM_H
#define REALM_H

#include <stdlib.h>
#include <string.h>

#include "tenant_program.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef uint32_t realm_token;
/* UTF-8, without a zero at its end. */
typedef tenant_program_string_t realm_string;
typedef realm_tenant_types_list_token_t realm_tokens;
typedef realm_tenant_types_error_t realm_error;
typedef realm_tenant_types_prompt_t realm_prompt;
typedef exports_realm_tenant_program_request_t realm_request;
typedef exports_realm_tenant_program_finish_reason_t realm_finish;
/* A token and its logit. */
typedef realm_tenant_logits_candidate_t realm_candidate;
typedef realm_tenant_logits_list_candidate_t realm_candidates;

typedef realm_tenant_models_own_model_t realm_model;
typedef realm_tenant_models_own_text_decoder_t realm_text;
typedef realm_tenant_sequences_own_sequence_t realm_sequence;
typedef realm_tenant_logits_own_logits_t realm_logits;

#define REALM_STOP REALM_TENANT_TYPES_FINISH_REASON_STOP
#define REALM_LENGTH REALM_TENANT_TYPES_FINISH_REASON_LENGTH

/* What a program defines. */
#define realm_run exports_realm_tenant_program_run

/* Fills `error` with a text of the program's own, which is copied; returns false. */
static inline bool realm_fail(realm_error *error, const char *message) {
    error->code = REALM_TENANT_TYPES_ERROR_CODE_FAILED;
    tenant_program_string_dup(&error->message, message);
    return false;
}

/* The model that the request was made of. */
static inline realm_model realm_model_current(void) {
    return realm_tenant_models_static_model_current();
}

/* Token ids of a prompt: a conversation is rendered by the model's chat template. */
static inline bool realm_tokenize(realm_model model, realm_prompt *prompt, realm_tokens *tokens, realm_error *error) {
    realm_tenant_models_list_token_t list;
    if (!realm_tenant_models_method_model_tokenize(realm_tenant_models_borrow_model(model), prompt, &list, error)) {
        return false;
    }
    tokens->ptr = list.ptr;
    tokens->len = list.len;
    return true;
}

static inline void realm_tokens_free(realm_tokens *tokens) {
    free(tokens->ptr);
}

/* Whether a token ends a text. */
static inline bool realm_is_end(realm_model model, realm_token token) {
    return realm_tenant_models_method_model_is_end(realm_tenant_models_borrow_model(model), token);
}

/* Makes text of tokens as they come, up to one of the request's stop strings. */
static inline realm_text realm_text_open(realm_model model, const realm_request *request) {
    tenant_program_list_string_t stop = request->stop;
    return realm_tenant_models_constructor_text_decoder(realm_tenant_models_borrow_model(model), &stop);
}

/* Sends text and the tokens it was made of. */
static inline bool realm_emit(realm_string text, const realm_token *tokens, size_t len, realm_error *error) {
    realm_tenant_output_list_token_t list = {(realm_token *)tokens, len};
    return realm_tenant_output_emit(&text, &list, error);
}

/* Sends what a token adds to the text; `stopped` says whether a stop string came. */
static inline bool realm_emit_token(realm_text text, realm_token token, bool *stopped, realm_error *error) {
    realm_tenant_models_piece_t piece;
    if (!realm_tenant_models_method_text_decoder_push(realm_tenant_models_borrow_text_decoder(text), token, &piece,
                                                      error)) {
        return false;
    }
    *stopped = piece.stopped;
    bool sent = realm_emit(piece.text, &token, 1, error);
    tenant_program_string_free(&piece.text);
    return sent;
}

/* Sends what was held back, after the last token. */
static inline bool realm_emit_rest(realm_text text, realm_error *error) {
    realm_string rest;
    realm_tenant_models_method_text_decoder_finish(realm_tenant_models_borrow_text_decoder(text), &rest);
    bool sent = realm_emit(rest, NULL, 0, error);
    tenant_program_string_free(&rest);
    return sent;
}

/* An empty sequence, with the request's adapter. */
static inline bool realm_sequence_open(realm_model model, realm_sequence *sequence, realm_error *error) {
    return realm_tenant_sequences_static_sequence_open(realm_tenant_models_borrow_model(model), sequence, error);
}

/* Adds tokens at the end; the next forward computes them. */
static inline bool realm_append(realm_sequence sequence, const realm_token *tokens, size_t len, realm_error *error) {
    realm_tenant_sequences_list_token_t list = {(realm_token *)tokens, len};
    return realm_tenant_sequences_method_sequence_append(realm_tenant_sequences_borrow_sequence(sequence), &list, error);
}

/* Another sequence with the same tokens, which shares what is computed. */
static inline bool realm_fork(realm_sequence sequence, realm_sequence *fork, realm_error *error) {
    return realm_tenant_sequences_method_sequence_fork(realm_tenant_sequences_borrow_sequence(sequence), fork, error);
}

/* Drops the tokens from the `len`th on. */
static inline bool realm_truncate(realm_sequence sequence, uint32_t len, realm_error *error) {
    return realm_tenant_sequences_method_sequence_truncate(realm_tenant_sequences_borrow_sequence(sequence), len, error);
}

static inline void realm_sequence_drop(realm_sequence sequence) {
    realm_tenant_sequences_sequence_drop_own(sequence);
}

/* Computes what was appended and gives the logits after the last token. Waits. */
static inline bool realm_forward(realm_sequence sequence, realm_logits *logits, realm_error *error) {
    return realm_tenant_sequences_method_sequence_forward(realm_tenant_sequences_borrow_sequence(sequence), logits, error);
}

/* The likeliest token. */
static inline realm_token realm_argmax(realm_logits logits) {
    return realm_tenant_logits_method_logits_argmax(realm_tenant_logits_borrow_logits(logits));
}

/* The k likeliest tokens, likeliest first. */
static inline realm_candidates realm_top(realm_logits logits, uint32_t k) {
    realm_candidates candidates;
    realm_tenant_logits_method_logits_top(realm_tenant_logits_borrow_logits(logits), k, &candidates);
    return candidates;
}

static inline void realm_candidates_free(realm_candidates *candidates) {
    free(candidates->ptr);
}

static inline void realm_logits_drop(realm_logits logits) {
    realm_tenant_logits_logits_drop_own(logits);
}

#ifdef __cplusplus
}
#endif

#endif
