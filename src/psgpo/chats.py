"""Chats as templates. No torch.

What a model reads is a template with the problem's text in its slot (`psgpo.prompts`). A chat is one too: the
tokenizer's chat template, written out once around the user's message, up to where the answer begins. So whoever has the
template (samplers, labels, PRM folders, exports) needs to know nothing about chats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from psgpo.errors import UserError
from psgpo.prompts import SLOT, TRIMMED_SLOT, encoder_prompts

if TYPE_CHECKING:
    from psgpo.config import Recipe

TODAY = "26 Jul 2024"
"""The date of templates that write one (Llama 3): a run's prompts must not change at midnight."""


def recipe_template(recipe: Recipe, tokenizer: Any) -> str:
    """The template of a recipe's prompts: `prompt_template`, or the chat around it.

    Raises:
        UserError: see `chat_layout`.
    """
    if not recipe.prompt_chat:
        return recipe.prompt_template
    return chat_layout(tokenizer, recipe.prompt_template, recipe.prompt_system)


def chat_layout(tokenizer: Any, message: str = SLOT, system: str | None = None) -> str:
    """The tokenizer's chat template around the user's `message`, which has a slot, up to where the answer begins.

    Filled and encoded it gives the ids of `apply_chat_template`, but for two things: a tokenizer that begins every
    text with a BOS does so here too, and a message that ends in the problem's text is trimmed with it where the chat
    template trims messages.

    Args:
        system: the system prompt; None leaves it to the chat template, which may write one of its own.

    Raises:
        UserError: an encoder reads the prompts, there is no chat template, or it refuses a system prompt or changes the
            message.
    """
    name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
    if encoder_prompts(tokenizer):
        raise UserError(f"{name}: an encoder–decoder reads a text, not a chat; set prompt_chat = false")
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"{name}: its tokenizer has no chat template; set prompt_chat = false, take the model's instruct version, "
            "or put a chat_template.jinja into the folder"
        )
    before = [] if system is None else [{"role": "system", "content": system}]

    def written(content: str) -> str:
        messages = [*before, {"role": "user", "content": content}]
        try:
            return str(
                tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, date_string=TODAY)
            )
        except TemplateError as error:
            advice = "leave prompt_system out" if before else "set prompt_chat = false or mend the template"
            raise UserError(f"{name}: its chat template refuses ({error}); {advice}") from None

    spaced = f"\n {message} \n"
    if spaced not in written(spaced):
        bare = message.strip()
        at_edge = bare.startswith(SLOT) or bare.endswith(SLOT)
        message = bare.replace(SLOT, TRIMMED_SLOT) if at_edge else bare
    text = written(message)
    if text.count(message) != 1:
        raise UserError(f"{name}: its chat template changes the user's message; set prompt_chat = false")
    return text


def answers_in_chat(tokenizer: Any, template: str) -> bool:
    """Whether a template ends as the tokenizer's chats do where the answer begins, whatever the message holds."""
    if encoder_prompts(tokenizer) or not getattr(tokenizer, "chat_template", None):
        return False
    try:
        layout = chat_layout(tokenizer)
    except UserError:  # of this chat template no prompt can be made, so this is none
        return False
    behind = layout.rpartition(TRIMMED_SLOT if TRIMMED_SLOT in layout else SLOT)[2]
    return bool(behind.strip()) and template.endswith(behind)


def end_of_turn(tokenizer: Any) -> str | None:
    """The special token that the chat template puts behind an answer; None where it puts none.

    >>> # "<|im_start|>assistant\\n" + answer + "<|im_end|>\\n"  ->  "<|im_end|>"
    """
    answer = "psgpo-answer"
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
    behind = tokenizer.apply_chat_template(messages, tokenize=False, date_string=TODAY).rpartition(answer)[2]
    ids = tokenizer(behind.lstrip(), add_special_tokens=False)["input_ids"]
    special = {int(token) for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    return str(tokenizer.convert_ids_to_tokens(int(ids[0]))) if ids and int(ids[0]) in special else None


def end_with_turns(model: Any, tokenizer: Any) -> None:
    """Let answers end as the chat template ends them: what closes a turn becomes the tokenizer's EOS, a stop beside
    those that the model had.

    A base model with the chat template of its family (Qwen2.5) has another EOS, which it would never learn to write
    here. Padding stays what it was. Changes both in place; they are saved with it.
    """
    token = end_of_turn(tokenizer)
    if token is None:
        return
    stops = getattr(model.generation_config, "eos_token_id", None)
    listed = stops if isinstance(stops, list) else [] if stops is None else [stops]
    end = int(tokenizer.convert_tokens_to_ids(token))
    known = [end, *listed, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])]
    model.generation_config.eos_token_id = list(dict.fromkeys(int(stop) for stop in known))
    tokenizer.eos_token = token
