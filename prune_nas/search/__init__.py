"""The phases of the main job: supernet, study, finals, and the pipeline that resumes them."""
