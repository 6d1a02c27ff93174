/* PyTorch's own file format (.pth, .pt): a zip archive with a pickle of names and shapes, and one raw member per storage. */
#ifndef MK_MODEL_TORCH_ZIP_H
#define MK_MODEL_TORCH_ZIP_H

#include "runtime/model/tensor_file.h"

bool mk_torch_zip_detect(const mk_map *map);

/* Fills f's table from its map (mk_tensor_file_open calls this). Takes a dictionary of plain tensors, as torch.save writes for
 * a state_dict, and nothing else; nothing in the file is ever executed. Members must be stored, not compressed. */
bool mk_torch_zip_read(mk_tensor_file *f, mk_status *st);

#endif
