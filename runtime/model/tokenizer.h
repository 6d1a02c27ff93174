/* umT5's tokenizer: a SentencePiece unigram model, segmented as Hugging Face's fast tokenizer does it. */
#ifndef MK_MODEL_TOKENIZER_H
#define MK_MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/status.h"

enum { MK_TEXT_LENGTH = 512 }; /* tokens of a prompt that Wan's networks take, the end token included */

typedef struct mk_tokenizer mk_tokenizer;

/* Reads a spiece.model; a tokenizer_config.json beside it, if there is one, says how many <extra_id_N> the vocabulary has.
 * NULL on failure. */
mk_tokenizer *mk_tokenizer_open(const char *path, mk_status *st);
void mk_tokenizer_close(mk_tokenizer *t);
int mk_tokenizer_vocab(const mk_tokenizer *t); /* ids lie below this: the embedding needs at least as many rows */

/* Tokens of text that mk_text_clean cleaned, the end token last; longer text is cut, which sets *truncated (may be NULL).
 * ids: room for `length`, the rest is filled with the pad id. Returns the count with the end token, or -1 with the status set. */
int mk_tokenizer_encode(const mk_tokenizer *t, const char *text, int32_t *ids, int length, bool *truncated, mk_status *st);

#endif
